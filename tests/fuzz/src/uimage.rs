//! Any bytes as a uImage, with sums that hold or not.
//!
//! What the tool takes for an image is one, of the right kind, to its last byte; its header is written as it was read.

use citrine_formats::manifest::Role;
use citrine_formats::uimage::{Arch, Compression, HEADER_LEN, Header, Image, Kind};
use citrine_planner::image::inspect;

use crate::input::Input;

/// Runs the target: 1 for a header, 2 for an image that a bundle may have.
pub(crate) fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Some((role, sums)) = input.one_of(&[Role::Kernel, Role::Rootfs, Role::Hypervisor]).zip(input.byte()) else {
        return 0;
    };
    let mut image = input.rest().to_vec();
    if sums & 1 != 0 {
        with_sums(&mut image);
    }
    let header = Header::parse(&image);
    if let Ok(header) = &header {
        assert_eq!(header.to_bytes()[..], image[..HEADER_LEN], "the header is written otherwise");
        let whole = Image::parse(&image);
        assert_eq!(whole.is_ok(), header.total_len() <= image.len() as u64);
        assert!(whole.is_ok_and(|image| image.payload.len() as u64 == u64::from(image.header.size)) || whole.is_err());
    }
    let Ok(facts) = inspect("image", role, &image) else { return usize::from(header.is_ok()) };
    let header = header.expect("an image has a header");
    assert!(Image::verify(&image).is_ok());
    assert_eq!((facts.size, header.total_len()), (image.len() as u64, image.len() as u64));
    assert_eq!(header.arch, Arch::PowerPc);
    assert_eq!(header.kind == Kind::Ramdisk, role == Role::Rootfs);
    assert!(matches!(header.compression, Compression::None | Compression::Gzip));
    2
}

/// Makes both sums right, and the size that of what follows: a fuzzer does not find them.
fn with_sums(image: &mut [u8]) {
    let Some((head, payload)) = image.split_at_mut_checked(HEADER_LEN) else { return };
    let right = Header::for_payload(Kind::Kernel, Compression::None, "", 0, payload).expect("it is short").to_bytes();
    // Offsets of `struct legacy_img_hdr`: the magic number, the size, the payload's CRC.
    for field in [0..4, 12..16, 24..28] {
        head[field.clone()].copy_from_slice(&right[field]);
    }
    head[4..8].fill(0);
    let mut sum = citrine_formats::uimage::Crc::default();
    sum.update(head);
    head[4..8].copy_from_slice(&sum.finish().to_be_bytes());
}
