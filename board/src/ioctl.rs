//! The kernel's device calls that nix has no functions for: the only unsafe code of this crate.
//!
//! Each call hands the kernel one value that it reads or fills, laid out as the kernel's own header says; the sizes
//! are checked below. The kernel checks the descriptor itself, so a wrong one is an error and not undefined.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::libc::c_int;

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WatchdogInfo {
    pub(crate) options: u32,
    pub(crate) firmware_version: u32,
    pub(crate) identity: [u8; 32],
}

/// `struct termios2` of asm/termbits.h.
#[repr(C)]
#[derive(Default)]
pub(crate) struct LineSettings {
    pub(crate) input: u32,
    pub(crate) output: u32,
    pub(crate) control: u32,
    pub(crate) local: u32,
    pub(crate) discipline: u8,
    pub(crate) characters: [u8; 19],
    pub(crate) input_speed: u32,
    pub(crate) output_speed: u32,
}

/// `struct gpiochip_info` of linux/gpio.h.
#[repr(C)]
pub(crate) struct ChipInfo {
    pub(crate) name: [u8; 32],
    pub(crate) label: [u8; 32],
    pub(crate) lines: u32,
}

/// `struct gpio_v2_line_attribute`, the union as its largest member.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct LineAttribute {
    pub(crate) id: u32,
    pub(crate) padding: u32,
    pub(crate) value: u64,
    /// Of `struct gpio_v2_line_config_attribute`: the lines meant.
    pub(crate) mask: u64,
}

/// `struct gpio_v2_line_request`, with its `gpio_v2_line_config` written out.
#[repr(C)]
pub(crate) struct LineRequest {
    pub(crate) offsets: [u32; 64],
    pub(crate) consumer: [u8; 32],
    pub(crate) flags: u64,
    pub(crate) attributes: u32,
    pub(crate) config_padding: [u32; 5],
    pub(crate) attribute: [LineAttribute; 10],
    pub(crate) lines: u32,
    pub(crate) event_buffer_size: u32,
    pub(crate) padding: [u32; 5],
    pub(crate) fd: c_int,
}

/// `struct gpio_v2_line_values`.
#[repr(C)]
#[derive(Default)]
struct LineValues {
    bits: u64,
    mask: u64,
}

/// `struct rand_pool_info` of linux/random.h, with its bytes.
#[repr(C)]
struct PoolInfo<const N: usize> {
    entropy_bits: c_int,
    size: c_int,
    bytes: [u8; N],
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct PartitionChange {
    start: i64,
    length: i64,
    number: c_int,
    names: [u8; 128],
}

/// The size of [`PartitionChange`], as the kernel wants to hear it.
const PARTITION_CHANGE: c_int = 152;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct PartitionCall {
    operation: c_int,
    flags: c_int,
    size: c_int,
    change: *const PartitionChange,
}

const _: () = {
    assert!(size_of::<WatchdogInfo>() == 40);
    assert!(size_of::<LineSettings>() == 44);
    assert!(size_of::<ChipInfo>() == 68);
    assert!(size_of::<LineAttribute>() == 24);
    assert!(size_of::<LineRequest>() == 592);
    assert!(size_of::<LineValues>() == 16);
    assert!(size_of::<PartitionChange>() == 152 && PARTITION_CHANGE == 152);
};

mod raw {
    use super::{ChipInfo, LineRequest, LineSettings, LineValues, PartitionCall, WatchdogInfo};
    use nix::libc::c_int;

    nix::ioctl_read!(watchdog_support, b'W', 0, WatchdogInfo);
    nix::ioctl_read!(watchdog_boot_status, b'W', 2, c_int);
    nix::ioctl_read!(watchdog_keep_alive, b'W', 5, c_int);
    nix::ioctl_readwrite!(watchdog_set_timeout, b'W', 6, c_int);
    nix::ioctl_read!(line_settings, b'T', 0x2A, LineSettings);
    nix::ioctl_write_ptr!(set_line_settings, b'T', 0x2B, LineSettings);
    nix::ioctl_read!(gpio_chip_info, 0xB4, 0x01, ChipInfo);
    nix::ioctl_readwrite!(gpio_request_line, 0xB4, 0x07, LineRequest);
    nix::ioctl_readwrite!(gpio_line_values, 0xB4, 0x0E, LineValues);
    // Declared in the header by two ints, though more follows.
    nix::ioctl_write_ptr_bad!(
        add_entropy,
        nix::request_code_write!(b'R', 0x03, size_of::<[c_int; 2]>()),
        super::PoolInfo<64>
    );
    nix::ioctl_write_ptr_bad!(change_partition, nix::request_code_none!(0x12, 105), PartitionCall);
}

/// `WDIOC_GETSUPPORT`.
pub(crate) fn watchdog_support(watchdog: &File) -> nix::Result<WatchdogInfo> {
    let mut info = WatchdogInfo { options: 0, firmware_version: 0, identity: [0; 32] };
    // SAFETY: `info` lives through the call and has the header's layout.
    unsafe { raw::watchdog_support(watchdog.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// `WDIOC_GETBOOTSTATUS`: the flags of what reset the machine, 0 when the driver cannot say.
pub(crate) fn watchdog_boot_status(watchdog: &File) -> nix::Result<c_int> {
    let mut flags = 0;
    // SAFETY: the kernel fills one int.
    unsafe { raw::watchdog_boot_status(watchdog.as_raw_fd(), &raw mut flags) }?;
    Ok(flags)
}

/// `WDIOC_KEEPALIVE`.
pub(crate) fn watchdog_keep_alive(watchdog: &File) -> nix::Result<()> {
    let mut nothing = 0;
    // SAFETY: the kernel does not touch the int that the header declares.
    unsafe { raw::watchdog_keep_alive(watchdog.as_raw_fd(), &raw mut nothing) }?;
    Ok(())
}

/// `WDIOC_SETTIMEOUT`, in seconds; gives what the driver made of it.
pub(crate) fn watchdog_set_timeout(watchdog: &File, seconds: c_int) -> nix::Result<c_int> {
    let mut seconds = seconds;
    // SAFETY: the kernel reads and writes one int.
    unsafe { raw::watchdog_set_timeout(watchdog.as_raw_fd(), &raw mut seconds) }?;
    Ok(seconds)
}

/// `TCGETS2`.
pub(crate) fn line_settings(line: &File) -> nix::Result<LineSettings> {
    let mut settings = LineSettings::default();
    // SAFETY: `settings` lives through the call and has the header's layout.
    unsafe { raw::line_settings(line.as_raw_fd(), &raw mut settings) }?;
    Ok(settings)
}

/// `TCSETS2`.
pub(crate) fn set_line_settings(line: &File, settings: &LineSettings) -> nix::Result<()> {
    // SAFETY: `settings` lives through the call and has the header's layout.
    unsafe { raw::set_line_settings(line.as_raw_fd(), settings) }?;
    Ok(())
}

/// `GPIO_GET_CHIPINFO_IOCTL`.
pub(crate) fn gpio_chip_info(chip: &File) -> nix::Result<ChipInfo> {
    let mut info = ChipInfo { name: [0; 32], label: [0; 32], lines: 0 };
    // SAFETY: `info` lives through the call and has the header's layout.
    unsafe { raw::gpio_chip_info(chip.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// `GPIO_V2_GET_LINE_IOCTL`: the descriptor through which the requested lines speak.
pub(crate) fn gpio_request_line(chip: &File, request: &mut LineRequest) -> nix::Result<OwnedFd> {
    // SAFETY: `request` lives through the call and has the header's layout.
    unsafe { raw::gpio_request_line(chip.as_raw_fd(), request) }?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// `GPIO_V2_LINE_GET_VALUES_IOCTL` for the first line of a request.
pub(crate) fn gpio_line_is_active(line: impl AsFd) -> nix::Result<bool> {
    let mut values = LineValues { bits: 0, mask: 1 };
    // SAFETY: `values` lives through the call and has the header's layout.
    unsafe { raw::gpio_line_values(line.as_fd().as_raw_fd(), &raw mut values) }?;
    Ok(values.bits & 1 == 1)
}

/// `RNDADDENTROPY`: mixes the bytes in and credits so many bits.
pub(crate) fn add_entropy(random: &File, bytes: [u8; 64], bits: c_int) -> nix::Result<()> {
    let pool = PoolInfo { entropy_bits: bits, size: 64, bytes };
    // SAFETY: the kernel reads the two ints and then `size` bytes, which is all that `pool` is.
    unsafe { raw::add_entropy(random.as_raw_fd(), &raw const pool) }?;
    Ok(())
}

/// `BLKPG_RESIZE_PARTITION`, in bytes; works while the partition is in use.
pub(crate) fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> nix::Result<()> {
    const RESIZE: c_int = 3;
    let wrong = |_| nix::Error::EINVAL;
    let change = PartitionChange {
        start: i64::try_from(start).map_err(wrong)?,
        length: i64::try_from(length).map_err(wrong)?,
        number: c_int::try_from(number).map_err(wrong)?,
        names: [0; 128],
    };
    let call =
        PartitionCall { operation: RESIZE, flags: 0, size: PARTITION_CHANGE, change: &raw const change };
    // SAFETY: `call` and the `change` it points to live through the call and have the header's layout.
    unsafe { raw::change_partition(disk.as_raw_fd(), &raw const call) }?;
    Ok(())
}
