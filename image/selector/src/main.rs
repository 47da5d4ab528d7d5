//! The EFI program `\EFI\BOOT\BOOTAA64.EFI`. On any other system: a program that says how it is built.
#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
mod entry {
    use core::fmt::Write;
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicPtr, Ordering};

    use selector::efi::{Console, Efi, reset};
    use selector::select::select;
    use uefi_raw::table::system::SystemTable;
    use uefi_raw::{Handle, Status};

    /// What a panic prints on.
    static SYSTEM: AtomicPtr<SystemTable> = AtomicPtr::new(core::ptr::null_mut());

    /// Where the firmware starts us.
    #[unsafe(export_name = "efi_main")]
    #[allow(unsafe_code, reason = "the firmware's way in")]
    extern "efiapi" fn efi_main(image: Handle, system: *mut SystemTable) -> Status {
        SYSTEM.store(system, Ordering::Relaxed);
        // SAFETY: the firmware passes its own table and our own handle, and leaves both alone until we end.
        let mut efi = unsafe { Efi::new(image, &*system) };
        select(&mut efi);
        efi.give_up()
    }

    #[panic_handler]
    #[allow(unsafe_code, reason = "prints on the table that efi_main was given")]
    fn panic(info: &PanicInfo<'_>) -> ! {
        // SAFETY: null, or the table of the firmware that runs us.
        if let Some(system) = unsafe { SYSTEM.load(Ordering::Relaxed).as_ref() } {
            // A console that fails leaves nothing better to do than to reset.
            let _ = writeln!(Console::new(system), "selector: {info}");
            reset(system);
        }
        loop {
            core::hint::spin_loop(); // the firmware's watchdog, 5 minutes after it started us, resets
        }
    }
}

#[cfg(not(target_os = "uefi"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "The selector runs in EFI firmware only; image/selector/README.md has the command that builds it."
    );
    std::process::ExitCode::FAILURE
}
