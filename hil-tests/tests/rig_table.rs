//! What the rigs showed: the table of rig and promise. It promises nothing itself and runs last.

use anyhow::Result;
use hil_tests::results;

#[test]
fn rig_and_promise() -> Result<()> {
    println!("\n{}", results::table(&results::kept()?));
    Ok(())
}
