// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kernels that Xen can start, and the memory that a domain needs for them.
//!
//! Xen 4.20 starts a 64-bit domain from an arm64 `Image`, plain or compressed by gzip
//! (`xen/arch/arm/kernel.c`). With another file, or with too little memory for the domain, it panics, and no
//! domain starts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

/// The length of the header (Linux, `Documentation/arch/arm64/booting.rst`).
const HEADER: usize = 64;
/// The offset in the header of the image's distance from the start of memory.
const TEXT_OFFSET: usize = 8;
/// The offset of the size of the image, from text to bss.
const IMAGE_SIZE: usize = 16;
/// The offset of `MAGIC`.
const MAGIC_OFFSET: usize = 0x38;
const MAGIC: &[u8] = b"ARM\x64";
/// The magic number of an EFI program that unpacks a kernel (Linux,
/// `drivers/firmware/efi/libstub/zboot-header.S`).
const ZBOOT: &[u8] = b"zimg";
const ZBOOT_OFFSET: usize = 4;
/// The magic number of U-Boot's legacy image.
const UIMAGE: &[u8] = &[0x27, 0x05, 0x19, 0x56];
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The unit in which Xen places kernel, ramdisk and device tree, and the size of a domain's largest device
/// tree.
pub const UNIT: u64 = 2 << 20;

/// Reasons why Xen does not start a file as a kernel. The texts follow "it is".
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It cannot be read.
    #[error("unreadable: {0}")]
    Read(#[from] io::Error),
    /// A kernel of `CONFIG_EFI_ZBOOT`.
    #[error("an EFI program that unpacks a kernel: give the kernel's `arch/arm64/boot/Image`")]
    Zboot,
    /// An image made by `mkimage`.
    #[error("an image for U-Boot: give the kernel's `arch/arm64/boot/Image`")]
    UImage,
    /// Neither a plain nor a compressed image.
    #[error("no arm64 kernel image: give the kernel's `arch/arm64/boot/Image`, plain or compressed by gzip")]
    NoImage,
}

/// The bytes from the start of a domain's memory to the end of the kernel in the file at `path`.
///
/// # Errors
///
/// Xen does not start it.
pub fn size(path: &Path) -> Result<u64, KernelError> {
    let mut head = Vec::new();
    File::open(path)?.take(HEADER as u64).read_to_end(&mut head)?;
    if !head.starts_with(GZIP) {
        return image_size(&head, std::fs::metadata(path)?.len());
    }
    let mut unpacked = GzDecoder::new(File::open(path)?);
    let mut head = Vec::new();
    unpacked.by_ref().take(HEADER as u64).read_to_end(&mut head).map_err(|_| KernelError::NoImage)?;
    let rest = io::copy(&mut unpacked, &mut io::sink()).map_err(|_| KernelError::NoImage)?;
    image_size(&head, rest.saturating_add(HEADER as u64))
}

/// Whether the kernel in the file at `path` is compressed. Xen decompresses it once and frees its place, so a
/// second domain has no kernel.
#[must_use]
pub fn is_packed(path: &Path) -> bool {
    let mut head = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *GZIP
}

/// The size in the header, which includes the bss, or that of the file if it is larger.
fn image_size(head: &[u8], file: u64) -> Result<u64, KernelError> {
    let has = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if has(ZBOOT_OFFSET, ZBOOT) {
        return Err(KernelError::Zboot);
    }
    if has(0, UIMAGE) {
        return Err(KernelError::UImage);
    }
    let number = |offset: usize| head.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes);
    match (number(TEXT_OFFSET), number(IMAGE_SIZE)) {
        (Some(offset), Some(size)) if has(MAGIC_OFFSET, MAGIC) => Ok(size.max(file).saturating_add(offset)),
        _ => Err(KernelError::NoImage),
    }
}

/// The bytes that kernel, ramdisk and device tree take in a domain's memory. Xen has a place for them only if
/// the memory is larger (`place_modules()`). The kernel needs more to unpack the ramdisk and to run.
pub fn footprint(kernel: u64, ramdisk: u64, device_tree: u64) -> u64 {
    [kernel, ramdisk, device_tree]
        .into_iter()
        .map(|part| part.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX))
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn header(image_size: u64) -> Vec<u8> {
        let mut head = vec![0; HEADER];
        head[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&image_size.to_le_bytes());
        head[MAGIC_OFFSET..].copy_from_slice(&[MAGIC, &[0; 4]].concat());
        head
    }

    fn size_of(content: &[u8]) -> Result<u64, KernelError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        size(file.path())
    }

    #[test]
    fn size_is_that_of_the_header_or_of_a_larger_file() {
        assert_eq!(size_of(&header(0x20_0000)).unwrap(), 0x20_0000);
        let mut long = header(0);
        long.resize(100_000, 1);
        assert_eq!(size_of(&long).unwrap(), 100_000);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&long).unwrap();
        assert_eq!(size_of(&packed.finish().unwrap()).unwrap(), 100_000);
    }

    #[test]
    fn file_that_xen_does_not_start_is_refused_with_its_format() {
        let mut zboot = header(0x20_0000);
        zboot[..8].copy_from_slice(b"MZ\0\0zimg");
        assert!(matches!(size_of(&zboot), Err(KernelError::Zboot)));
        assert!(matches!(size_of(&[UIMAGE, &[0; 60]].concat()), Err(KernelError::UImage)));
        for other in [&b""[..], b"\x7fELF", &[0; 64], &[GZIP, b"not gzip"].concat()] {
            assert!(matches!(size_of(other), Err(KernelError::NoImage)), "{other:?}");
        }
    }

    #[test]
    fn footprint_rounds_each_part_up_to_whole_units() {
        assert_eq!(footprint(1, 1, 1), 3 * UNIT);
        assert_eq!(footprint(UNIT, 0, UNIT + 1), 3 * UNIT);
        assert_eq!(footprint(u64::MAX, 1, 1), u64::MAX);
    }
}
