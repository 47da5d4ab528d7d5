//! The firmware: a console, the disk we were loaded from, and the way to start an image. The only unsafe code here.
#![allow(unsafe_code, reason = "calls through the firmware's tables; each says why it may")]

use core::ffi::c_void;
use core::{fmt, ptr, slice};

use board::slots::PAYLOAD;
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::file_system::{FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, BootServices, MemoryType};
use uefi_raw::table::runtime::ResetType;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Boolean, Guid, Handle, Status, guid};

use crate::gpt::{Partition, SECTOR};
use crate::path::Path;
use crate::select::{Image, Machine, RESCUE, lba};

/// The firmware that started us.
pub struct Efi<'a> {
    system: &'a SystemTable,
    boot: &'a BootServices,
    image: Handle,
    /// The partition that we were loaded from.
    device: Handle,
    disk: Result<Disk<'a>, Refusal>,
}

/// The disk that we were loaded from.
struct Disk<'a> {
    blocks: &'a BlockIoProtocol,
    path: Path,
}

impl<'a> Efi<'a> {
    /// Looks around.
    ///
    /// # Safety
    /// `system` is the firmware's table and `image` our own handle, before `ExitBootServices`.
    pub unsafe fn new(image: Handle, system: &'a SystemTable) -> Self {
        // SAFETY: until ExitBootServices the table's pointer to the boot services is valid.
        let boot = unsafe { &*system.boot_services };
        let mut this = Self {
            system,
            boot,
            image,
            device: ptr::null_mut(),
            disk: Err(Refusal("the partition it was loaded from", Status::NOT_FOUND)),
        };
        let secure = if this.secure_boot() { "on" } else { "off" };
        this.say(format_args!("{}, Secure Boot {secure}", env!("CARGO_PKG_VERSION")));
        if let Ok(loaded) = this.protocol::<LoadedImageProtocol>(image, &LoadedImageProtocol::GUID) {
            this.device = loaded.device_handle;
            this.disk = this.find_disk();
        }
        this
    }

    /// Waits until somebody may have read what was said, then resets.
    pub fn give_up(&mut self) -> ! {
        self.say(format_args!("resetting in 10 seconds"));
        // SAFETY: the boot services are there, and waiting has no other condition.
        let _ = unsafe { (self.boot.stall)(10_000_000) };
        reset(self.system)
    }

    /// Cuts the partition off our own device path; what has the rest for its path is the disk.
    fn find_disk(&self) -> Result<Disk<'a>, Refusal> {
        const STEP: &str = "the disk it was loaded from";
        static DISK: Guid = BlockIoProtocol::GUID;
        let own = self.protocol::<DevicePathProtocol>(self.device, &DevicePathProtocol::GUID);
        let own = own.map_err(|status| Refusal(STEP, status))?;
        // SAFETY: the firmware's device paths end with an end node.
        let path = unsafe { Path::disk_of(own) }.ok_or(Refusal(STEP, Status::UNSUPPORTED))?;
        let mut rest = path.as_ptr();
        let mut handle = ptr::null_mut();
        // SAFETY: `path` is a device path with an end node, and outlives the call.
        let status =
            unsafe { (self.boot.locate_device_path)(&raw const DISK, &raw mut rest, &raw mut handle) };
        check(STEP, status)?;
        let blocks = self.protocol::<BlockIoProtocol>(handle, &BlockIoProtocol::GUID);
        let blocks = blocks.map_err(|status| Refusal(STEP, status))?;
        // SAFETY: the protocol's media stays with it.
        let media = unsafe { &*blocks.media };
        // The nearest device on the way may be another one; and whoever has other sectors has no GPT of ours.
        if media.logical_partition.into() || media.block_size as usize != SECTOR || !path.is_end(rest) {
            return Err(Refusal(STEP, Status::UNSUPPORTED));
        }
        Ok(Disk { blocks, path })
    }

    fn protocol<T>(&self, handle: Handle, guid: &Guid) -> Result<&'a T, Status> {
        let mut found = ptr::null_mut();
        // SAFETY: the firmware refuses handles that it does not know, null included.
        let status = unsafe { (self.boot.handle_protocol)(handle, guid, &raw mut found) };
        if status != Status::SUCCESS {
            return Err(status);
        }
        // SAFETY: what the firmware gives for this GUID is of this type; callers pass the type's own GUID.
        unsafe { found.cast::<T>().as_ref() }.ok_or(Status::NOT_FOUND)
    }

    fn secure_boot(&self) -> bool {
        static GLOBAL: Guid = guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
        let name = utf16::<11>("SecureBoot");
        let (mut value, mut size) = (0_u8, 1);
        // SAFETY: the runtime services are there; the name ends with 0 and the value has `size` bytes.
        let status = unsafe {
            let get = (*self.system.runtime_services).get_variable;
            get(name.as_ptr(), &raw const GLOBAL, ptr::null_mut(), &raw mut size, &raw mut value)
        };
        status == Status::SUCCESS && value == 1
    }

    fn read_blocks(&self, lba: u64, into: &mut [u8]) -> Result<(), Refusal> {
        let blocks = self.disk()?.blocks;
        // SAFETY: the protocol's media stays with it, and the firmware fills `into` and no more.
        let status = unsafe {
            let id = (*blocks.media).media_id;
            (blocks.read_blocks)(blocks, id, lba, into.len(), into.as_mut_ptr().cast())
        };
        check("reading", status)
    }

    fn disk(&self) -> Result<&Disk<'a>, Refusal> {
        self.disk.as_ref().map_err(|refusal| *refusal)
    }

    /// Reads a slot's firmware, loads and starts it.
    fn start_slot(&self, partition: Partition, length: u64) -> Result<(), Refusal> {
        let path =
            self.disk()?.path.partition(&partition).ok_or(Refusal("its path", Status::BUFFER_TOO_SMALL))?;
        let length =
            usize::try_from(length).map_err(|_| Refusal("memory for it", Status::OUT_OF_RESOURCES))?;
        let mut memory = Memory::new(self.boot, length.next_multiple_of(SECTOR))?;
        let first = lba(partition, PAYLOAD);
        for (lba, chunk) in (first..).step_by(CHUNK / SECTOR).zip(memory.bytes().chunks_mut(CHUNK)) {
            self.read_blocks(lba, chunk)?;
        }
        self.load(&path, memory, length)
    }

    /// Reads the rescue firmware from the boot partition, loads and starts it.
    fn start_rescue(&self) -> Result<(), Refusal> {
        let own = self.protocol::<DevicePathProtocol>(self.device, &DevicePathProtocol::GUID);
        let own = own.map_err(|status| Refusal("the boot partition", status))?;
        // SAFETY: the firmware's device paths end with an end node.
        let path = unsafe { Path::file(own, RESCUE) }.ok_or(Refusal("its path", Status::BUFFER_TOO_SMALL))?;
        let volume = self.protocol::<SimpleFileSystemProtocol>(self.device, &SimpleFileSystemProtocol::GUID);
        let volume = volume.map_err(|status| Refusal("the boot partition", status))?;
        let root = File::root(volume)?;
        let file = root.open(RESCUE)?;
        let length = file.length()?;
        let mut memory = Memory::new(self.boot, length)?;
        file.read(memory.bytes())?;
        self.load(&path, memory, length)
    }

    /// Has the firmware verify, load and start `length` bytes of `memory`. It names no options: the command line is
    /// built into what is started, and nothing may add to it.
    fn load(&self, path: &Path, mut memory: Memory<'_>, length: usize) -> Result<(), Refusal> {
        let bytes = &memory.bytes()[..length];
        let mut image = ptr::null_mut();
        // SAFETY: path and buffer are valid for the call; the firmware copies what it keeps of them.
        let status = unsafe {
            let path = path.as_ptr();
            (self.boot.load_image)(
                Boolean::FALSE,
                self.image,
                path,
                bytes.as_ptr(),
                bytes.len(),
                &raw mut image,
            )
        };
        drop(memory); // what starts has the room
        let mut outcome = check("verifying and loading", status);
        if outcome.is_ok() {
            // SAFETY: the image was loaded; what it exits with is not asked for.
            let status = unsafe { (self.boot.start_image)(image, ptr::null_mut(), ptr::null_mut()) };
            outcome = check("starting", status);
            if status != Status::SECURITY_VIOLATION {
                return outcome; // it ran, and came back; then the firmware has unloaded it
            }
        }
        if !image.is_null() {
            // What is refused for its signature may stay loaded (UEFI specification §7.4).
            // SAFETY: LoadImage gave the handle, and what it stands for did not run.
            let _ = unsafe { (self.boot.unload_image)(image) };
        }
        outcome
    }
}

impl Machine for Efi<'_> {
    type Error = Refusal;

    fn last(&mut self) -> Result<u64, Refusal> {
        // SAFETY: the protocol's media stays with it.
        self.disk().map(|disk| unsafe { (*disk.blocks.media).last_block })
    }

    fn read(&mut self, lba: u64, into: &mut [u8; SECTOR]) -> Result<(), Refusal> {
        let mut sector = Aligned([0; SECTOR]);
        self.read_blocks(lba, &mut sector.0)?;
        *into = sector.0;
        Ok(())
    }

    fn write(&mut self, lba: u64, sector: &[u8; SECTOR]) -> Result<(), Refusal> {
        let sector = Aligned(*sector);
        let blocks = ptr::from_ref(self.disk()?.blocks).cast_mut();
        // SAFETY: the firmware's protocol, which nobody else uses while we run; it reads one sector from us.
        let status = unsafe {
            let id = (*(*blocks).media).media_id;
            ((*blocks).write_blocks)(blocks, id, lba, SECTOR, sector.0.as_ptr().cast())
        };
        check("writing", status)?;
        // SAFETY: as above.
        check("flushing", unsafe { ((*blocks).flush_blocks)(blocks) })
    }

    fn watchdog(&mut self, seconds: usize) -> Result<(), Refusal> {
        // SAFETY: no text comes with the code, which is one of those left to operating systems.
        check("arming", unsafe { (self.boot.set_watchdog_timer)(seconds, 0x1_0000, 0, ptr::null()) })
    }

    fn start(&mut self, image: Image) -> Refusal {
        let outcome = match image {
            Image::Slot(partition, length) => self.start_slot(partition, length),
            Image::Rescue => self.start_rescue(),
        };
        outcome.err().unwrap_or(Refusal("it ended", Status::SUCCESS))
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        // A console that fails is no reason not to boot.
        let _ = fmt::write(&mut Console::new(self.system), format_args!("selector: {line}\n"));
    }
}

/// What the firmware refused, and with which status.
#[derive(Clone, Copy, Debug)]
pub struct Refusal(&'static str, Status);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, status) = self;
        let text = match *status {
            Status::SUCCESS => return f.write_str(step),
            Status::LOAD_ERROR => "LOAD_ERROR",
            Status::INVALID_PARAMETER => "INVALID_PARAMETER",
            Status::UNSUPPORTED => "UNSUPPORTED",
            Status::BUFFER_TOO_SMALL => "BUFFER_TOO_SMALL",
            Status::NOT_READY => "NOT_READY",
            Status::DEVICE_ERROR => "DEVICE_ERROR",
            Status::WRITE_PROTECTED => "WRITE_PROTECTED",
            Status::OUT_OF_RESOURCES => "OUT_OF_RESOURCES",
            Status::VOLUME_CORRUPTED => "VOLUME_CORRUPTED",
            Status::NO_MEDIA => "NO_MEDIA",
            Status::MEDIA_CHANGED => "MEDIA_CHANGED",
            Status::NOT_FOUND => "NOT_FOUND",
            Status::ACCESS_DENIED => {
                "ACCESS_DENIED: its signature is missing or wrong, or its key is not trusted"
            }
            Status::TIMEOUT => "TIMEOUT",
            Status::ABORTED => "ABORTED",
            Status::SECURITY_VIOLATION => {
                "SECURITY_VIOLATION: its signature is missing or wrong, or its key is not trusted"
            }
            Status::CRC_ERROR => "CRC_ERROR",
            Status::END_OF_FILE => "END_OF_FILE",
            Status(other) => return write!(f, "{step}: status {other:#x}"),
        };
        write!(f, "{step}: {text}")
    }
}

/// Resets the machine.
pub fn reset(system: &SystemTable) -> ! {
    // SAFETY: the runtime services stay valid; this call does not return.
    unsafe { ((*system.runtime_services).reset_system)(ResetType::COLD, Status::SUCCESS, 0, ptr::null()) }
}

/// The firmware's console, which is the serial port where there is one.
pub struct Console<'a>(&'a SystemTable);

impl<'a> Console<'a> {
    /// The console of this firmware.
    pub const fn new(system: &'a SystemTable) -> Self {
        Self(system)
    }
}

impl fmt::Write for Console<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let console = self.0.stdout;
        if console.is_null() {
            return Err(fmt::Error);
        }
        for character in text.chars() {
            let mut units = [0; 3];
            if character == '\n' {
                units[..2].copy_from_slice(&[u16::from(b'\r'), u16::from(b'\n')]);
            } else {
                character.encode_utf16(&mut units[..2]);
            }
            // SAFETY: the firmware's console, and a text that ends with 0.
            let status = unsafe { ((*console).output_string)(console, units.as_ptr()) };
            if status.0 & ERROR != 0 {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// The bit that tells errors from warnings.
const ERROR: usize = 1 << (usize::BITS - 1);

/// A sector where drivers want it: some transfer from nowhere but multiples of their block or cache line.
#[repr(align(4096))]
struct Aligned([u8; SECTOR]);

/// Pages of the firmware's, zeroed.
struct Memory<'a> {
    boot: &'a BootServices,
    address: u64,
    length: usize,
}

impl<'a> Memory<'a> {
    fn new(boot: &'a BootServices, length: usize) -> Result<Self, Refusal> {
        let mut address = 0;
        // SAFETY: the firmware writes where the pages are.
        let status = unsafe {
            let pages = length.div_ceil(PAGE);
            (boot.allocate_pages)(AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, pages, &raw mut address)
        };
        check("memory for it", status)?;
        // SAFETY: the pages are ours, and larger than this.
        unsafe { ptr::write_bytes(address as *mut u8, 0, length) };
        Ok(Self { boot, address, length })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are ours until drop, and were filled with zeros.
        unsafe { slice::from_raw_parts_mut(self.address as *mut u8, self.length) }
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated as so many pages, and nothing borrows them any more.
        let _ = unsafe { (self.boot.free_pages)(self.address, self.length.div_ceil(PAGE)) };
    }
}

/// Bytes of a page of the firmware's, whatever the CPU's are.
const PAGE: usize = 4096;

/// An open file or folder.
struct File(*mut FileProtocolV1);

impl File {
    fn root(volume: &SimpleFileSystemProtocol) -> Result<Self, Refusal> {
        let mut root = ptr::null_mut();
        // SAFETY: the firmware's protocol, which nobody else uses while we run.
        let status = unsafe { (volume.open_volume)(ptr::from_ref(volume).cast_mut(), &raw mut root) };
        check("opening the boot partition", status)?;
        Ok(Self(root))
    }

    fn open(&self, name: &str) -> Result<Self, Refusal> {
        let name = utf16::<32>(name);
        let mut file = ptr::null_mut();
        // SAFETY: an open folder, and a name that ends with 0.
        let status = unsafe {
            ((*self.0).open)(self.0, &raw mut file, name.as_ptr(), FileMode::READ, FileAttribute::empty())
        };
        check("opening it", status)?;
        Ok(Self(file))
    }

    /// Its length, found by going to its end (UEFI specification §13.5).
    fn length(&self) -> Result<usize, Refusal> {
        const STEP: &str = "measuring it";
        let mut length = 0;
        // SAFETY: an open file.
        unsafe {
            check(STEP, ((*self.0).set_position)(self.0, u64::MAX))?;
            check(STEP, ((*self.0).get_position)(self.0, &raw mut length))?;
            check(STEP, ((*self.0).set_position)(self.0, 0))?;
        }
        match usize::try_from(length) {
            Ok(length) if (1..=LARGEST).contains(&length) => Ok(length),
            _ => Err(Refusal(STEP, Status::UNSUPPORTED)),
        }
    }

    fn read(&self, into: &mut [u8]) -> Result<(), Refusal> {
        let mut size = into.len();
        // SAFETY: an open file; the firmware writes at most `size` bytes.
        check("reading it", unsafe {
            ((*self.0).read)(self.0, &raw mut size, into.as_mut_ptr().cast::<c_void>())
        })?;
        if size == into.len() { Ok(()) } else { Err(Refusal("reading it", Status::END_OF_FILE)) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: opened, and closed once.
        let _ = unsafe { ((*self.0).close)(self.0) };
    }
}

/// Bytes read at once: some firmware bounces or splits what is larger, and not all of it does so well.
const CHUNK: usize = 1 << 20;

/// More is no firmware of ours: the boot partition has 64 MiB.
const LARGEST: usize = 64 << 20;

fn check(step: &'static str, status: Status) -> Result<(), Refusal> {
    if status == Status::SUCCESS { Ok(()) } else { Err(Refusal(step, status)) }
}

/// An ASCII name as the firmware wants it, with its 0; `N` has room for both.
pub(crate) fn utf16<const N: usize>(name: &str) -> [u16; N] {
    let mut units = [0; N];
    for (unit, byte) in units[..N - 1].iter_mut().zip(name.bytes()) {
        *unit = u16::from(byte);
    }
    units
}
