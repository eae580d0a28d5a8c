//! What is packed is unpacked; what is damaged, cut off or a bomb is an error; the frames of others are read.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::config::TimestampType;
use crate::format::encode::BatchBuilder;
use crate::format::header::field;
use crate::record::Record;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn is_built(codec: Codec) -> bool {
    match codec {
        Codec::Gzip => cfg!(feature = "gzip"),
        Codec::Snappy => cfg!(feature = "snappy"),
        Codec::Lz4 => cfg!(feature = "lz4"),
        Codec::Zstd => cfg!(feature = "zstd"),
    }
}

fn built() -> impl Iterator<Item = Codec> {
    CODECS.into_iter().filter(|codec| is_built(*codec))
}

fn plain(values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    for (value, n) in values.iter().zip(0..) {
        builder.push(&Record::new(value.as_slice()).header("h", "x"), 1000 + n).unwrap();
    }
    let mut batch = builder.seal(TimestampType::CreateTime);
    batch.stamp(77, 3);
    batch.bytes().to_vec()
}

/// The same batch with other records behind its header, as if a codec had made them.
fn with_stream(plain: &[u8], codec: u8, stream: &[u8]) -> Vec<u8> {
    let mut bytes = [&plain[..header::LEN], stream].concat();
    let len = bytes.len() - header::LENGTH_EXCLUDES;
    bytes[field::LENGTH].copy_from_slice(&(len as u32).to_be_bytes());
    bytes[field::ATTRIBUTES.end - 1] |= codec;
    let checksum = crc32c::crc32c(&bytes[field::CHECKSUM.end..]);
    bytes[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn packed(plain: &[u8], codec: Codec, level: i32) -> Option<Vec<u8>> {
    let mut packer = Packer::default();
    let stream = packer.pack(codec, level, &plain[header::LEN..])?;
    Some(with_stream(plain, codec as u8, stream))
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, BatchFault> {
    let mut into = Unpacked::default();
    Unpacker::default().verify(bytes, &mut into)?;
    Ok(into.bytes().to_vec())
}

fn assert_is(unpacked: &[u8], plain: &[u8]) {
    // The checksum is that of the packed batch.
    assert_eq!(unpacked[..field::CHECKSUM.start], plain[..field::CHECKSUM.start]);
    assert!(unpacked[field::CHECKSUM.end..] == plain[field::CHECKSUM.end..]);
}

fn repetitive() -> Vec<u8> {
    let value = |n: i32| format!("{{\"sensor\":{},\"state\":\"fine\"}}", n % 7).into_bytes();
    plain(&(0..300).map(value).collect::<Vec<_>>())
}

#[test]
fn every_level_makes_the_round_trip() {
    let plain = repetitive();
    for codec in built() {
        let levels = match codec {
            Codec::Gzip => -1..=9,
            Codec::Zstd => -7..=22,
            Codec::Snappy | Codec::Lz4 => 0..=0,
        };
        for level in levels {
            if (codec, level) == (Codec::Gzip, 0) {
                continue;
            }
            let packed = packed(&plain, codec, level).unwrap();
            assert!(packed.len() < plain.len() / 2, "{codec:?} {level}: {}", packed.len());
            assert_is(&unpacked(&packed).unwrap(), &plain);
        }
    }
}

#[test]
fn buffers_and_states_are_used_again_for_batches_of_all_sizes() {
    let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
    let mut into = Unpacked::default();
    let mut expected = 0;
    for round in 0..40_usize {
        let values = vec![vec![b'a' + (round % 20) as u8; 1 << (round % 16)]; 1 + round % 9];
        let plain = plain(&values);
        for codec in built() {
            let Some(stream) = packer.pack(codec, 3, &plain[header::LEN..]) else { continue };
            let packed = with_stream(&plain, codec as u8, stream);
            let header = crate::format::decode::header_at(&packed).unwrap();
            let start = into.len();
            unpacker.unpack(&header, &packed, &mut into).unwrap();
            assert_is(&into.bytes()[start..], &plain);
            expected += plain.len();
            assert_eq!(into.len(), expected);
        }
        if round % 10 == 9 {
            into.clear();
            expected = 0;
        }
    }
}

#[test]
fn what_does_not_shrink_is_not_packed() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect()
    };
    for len in [0, 1, 40, 1000, 70_000, 200_000] {
        let plain = plain(&[noise(len)]);
        for codec in built() {
            assert!(packed(&plain, codec, 3).is_none(), "{codec:?} {len}");
        }
    }
}

#[test]
fn every_truncated_stream_is_refused() {
    let plain = repetitive();
    for codec in built() {
        let whole = packed(&plain, codec, 3).unwrap();
        let stream = &whole[header::LEN..];
        for len in 0..stream.len() {
            let cut = with_stream(&plain, codec as u8, &stream[..len]);
            let fault = unpacked(&cut);
            assert!(matches!(fault, Err(BatchFault::Record(_))), "{codec:?} {len}");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_changes_values_only() {
    let plain = repetitive();
    let mut into = Unpacked::default();
    let mut unpacker = Unpacker::default();
    for codec in built() {
        let whole = packed(&plain, codec, 3).unwrap();
        let stream = whole[header::LEN..].to_vec();
        let mut refused = 0;
        for bit in 0..stream.len() * 8 {
            let mut flipped = stream.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = with_stream(&plain, codec as u8, &flipped);
            into.clear();
            match unpacker.verify(&flipped, &mut into) {
                // Only some codecs have a checksum of their own; whatever gets through can be walked to its end.
                Ok(batch) => assert_eq!(batch.records().count(), 300),
                Err(BatchFault::Record(_)) => refused += 1,
                Err(other) => panic!("{codec:?} bit {bit}: {other:?}"),
            }
        }
        assert!(refused > stream.len(), "{codec:?}: {refused}");
    }
}

/// A record that claims what a bomb needs.
fn bomb(codec: Codec) -> Vec<u8> {
    let zeros = vec![0; UNPACKED_LEN_MAX + (4 << 20)];
    let mut packer = Packer::default();
    // The packer itself refuses to make what the reader refuses.
    assert_eq!(packer.pack(codec, 1, &zeros), None);
    let stream = std::mem::take(&mut packer.packed);
    drop(zeros);
    with_stream(&plain(&[vec![1]]), codec as u8, &stream)
}

#[test]
fn a_bomb_is_an_error_and_leaves_no_memory_behind() {
    // Snappy makes twenty of one at most.
    for codec in built().filter(|codec| matches!(codec, Codec::Gzip | Codec::Zstd | Codec::Lz4)) {
        let bomb = bomb(codec);
        let mut into = Unpacked::default();
        let fault = Unpacker::default().verify(&bomb, &mut into);
        assert_eq!(fault.map(|_| ()), Err(BatchFault::Record(TOO_LONG)), "{codec:?}");
        into.clear();
        assert!(into.bytes.len() <= BUFFER_KEPT);
    }
}

#[cfg(feature = "snappy")]
#[test]
fn a_length_that_cannot_be_makes_no_room() {
    let plain = plain(&[vec![1]]);
    // A bare block that claims four gigabytes.
    let stream = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    let mut into = Unpacked::default();
    let batch = with_stream(&plain, Codec::Snappy as u8, &stream);
    let fault = Unpacker::default().verify(&batch, &mut into);
    assert!(matches!(fault, Err(BatchFault::Record(_))));
    assert!(into.bytes.len() <= 1 << 16);
}

#[cfg(feature = "snappy")]
#[test]
fn both_of_snappys_framings_are_read() {
    let plain = repetitive();
    let records = &plain[header::LEN..];
    let bare = snap::raw::Encoder::new().compress_vec(records).unwrap();
    assert_is(&unpacked(&with_stream(&plain, 2, &bare)).unwrap(), &plain);
    // Joined streams, as Java's library reads them.
    let mut packer = Packer::default();
    let (front, behind) = records.split_at(1000);
    let mut joined = packer.pack(Codec::Snappy, 0, front).unwrap().to_vec();
    joined.extend_from_slice(packer.pack(Codec::Snappy, 0, behind).unwrap());
    assert!(joined.starts_with(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"));
    assert_is(&unpacked(&with_stream(&plain, 2, &joined)).unwrap(), &plain);
}

#[cfg(feature = "lz4")]
#[test]
fn lz4_frames_of_every_kind_are_read() {
    use lz4_flex::frame::BlockMode;
    use lz4_flex::frame::BlockSize;
    use lz4_flex::frame::FrameEncoder;
    use lz4_flex::frame::FrameInfo;
    use std::io::Write;
    let plain = plain(&(0..9000).map(|n| format!("record {n}").into_bytes()).collect::<Vec<_>>());
    let records = &plain[header::LEN..];
    for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for checks in [false, true] {
                let info = FrameInfo::new()
                    .block_size(size)
                    .block_mode(mode)
                    .block_checksums(checks)
                    .content_checksum(checks)
                    .content_size(checks.then_some(records.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(records).unwrap();
                let stream = encoder.finish().unwrap();
                assert_is(&unpacked(&with_stream(&plain, 3, &stream)).unwrap(), &plain);
                if checks {
                    let mut damaged = stream.clone();
                    let last = damaged.len() - 1;
                    damaged[last] ^= 1;
                    assert!(unpacked(&with_stream(&plain, 3, &damaged)).is_err());
                }
            }
        }
    }
    assert!(unpacked(&with_stream(&plain, 3, b"\x02\x21\x4c\x18\0\0\0\0\0\0\0")).is_err());
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_members_follow_one_another_and_what_is_no_member_ends_them() {
    let plain = repetitive();
    let records = &plain[header::LEN..];
    let mut packer = Packer::default();
    let (front, behind) = records.split_at(1000);
    let first = packer.pack(Codec::Gzip, 9, front).unwrap().to_vec();
    let second = packer.pack(Codec::Gzip, 1, behind).unwrap().to_vec();
    // The second one has everything that a header can have.
    let mut adorned = vec![0x1f, 0x8b, 8, 0b1_1110, 1, 2, 3, 4, 2, 3];
    adorned.extend_from_slice(b"\x03\0abcname\0comment\0\x55\x55");
    adorned.extend_from_slice(&second[10..]);
    let joined = [&first[..], &adorned, b"garbage"].concat();
    assert_is(&unpacked(&with_stream(&plain, 1, &joined)).unwrap(), &plain);
    let mut damaged = [&first[..], &adorned].concat();
    let last = damaged.len() - 5;
    damaged[last] ^= 1;
    assert!(unpacked(&with_stream(&plain, 1, &damaged)).is_err());
}

#[cfg(feature = "zstd")]
#[test]
fn zstandard_frames_follow_one_another_in_windows_of_every_size() {
    use std::io::Write;
    let plain = plain(&(0..9000).map(|n| format!("record {n}").into_bytes()).collect::<Vec<_>>());
    let records = &plain[header::LEN..];
    for (level, window_log) in [(1, 10), (3, 21), (19, 24), (22, 27)] {
        let mut joined = Vec::new();
        for part in records.chunks(100_000) {
            // As Java's clients do: piece by piece, and so without a content size.
            let mut encoder = ::zstd::Encoder::new(Vec::new(), level).unwrap();
            encoder.window_log(window_log).unwrap();
            for piece in part.chunks(1000) {
                encoder.write_all(piece).unwrap();
            }
            joined.extend_from_slice(&encoder.finish().unwrap());
        }
        assert_is(&unpacked(&with_stream(&plain, 4, &joined)).unwrap(), &plain);
        // The other path.
        let mut bytes = Vec::new();
        let mut room = Room { bytes: &mut bytes, start: 0, end: 0, limit: 1 << 20 };
        super::zstandard::stream(&joined, &mut room).unwrap();
        let end = room.end;
        assert!(&bytes[..end] == records);
        let mut room = Room { bytes: &mut bytes, start: 0, end: 0, limit: end - 1 };
        assert_eq!(super::zstandard::stream(&joined, &mut room), Err(TOO_LONG));
        let mut room = Room { bytes: &mut bytes, start: 0, end: 0, limit: end };
        super::zstandard::stream(&joined, &mut room).unwrap();
        for len in [1, 5, 100, joined.len() - 1] {
            let mut room = Room { bytes: &mut bytes, start: 0, end: 0, limit: 1 << 20 };
            assert!(super::zstandard::stream(&joined[..len], &mut room).is_err(), "{len}");
        }
    }
}

#[test]
fn a_codec_that_is_not_there_is_named() {
    let plain = repetitive();
    for (number, name) in
        [(1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd"), (5, "an unknown codec")]
    {
        let is_built = CODECS.get(number - 1).is_some_and(|codec| is_built(*codec));
        let fault = unpacked(&with_stream(&plain, number as u8, b"nothing")).unwrap_err();
        assert_eq!(fault == BatchFault::Compressed(name), !is_built, "{name}: {fault:?}");
    }
}

proptest! {
    #![proptest_config(Config { cases: 100, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_is_packed_is_unpacked(
        values in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..50),
                prop::collection::vec(0..3_u8, 0..3000),
                (any::<u8>(), 0..100_000_usize).prop_map(|(byte, len)| vec![byte; len]),
            ],
            1..20,
        ),
        level in 1..9,
    ) {
        let plain = plain(&values);
        for codec in built() {
            if let Some(packed) = packed(&plain, codec, level) {
                prop_assert!(packed.len() < plain.len());
                assert_is(&unpacked(&packed).unwrap(), &plain);
            }
        }
    }

    #[test]
    fn whatever_the_bytes_are_unpacking_ends(
        stream in prop::collection::vec(any::<u8>(), 0..300),
        keep_front in 0..40_usize,
    ) {
        let plain = repetitive();
        for codec in built() {
            let whole = packed(&plain, codec, 3).unwrap();
            let front = &whole[header::LEN..][..keep_front.min(whole.len() - header::LEN)];
            let bytes = with_stream(&plain, codec as u8, &[front, &stream].concat());
            if let Ok(unpacked) = unpacked(&bytes) {
                prop_assert_eq!(Batch::verified(&unpacked).unwrap().records().count(), 300);
            }
        }
    }
}
