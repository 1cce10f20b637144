//! Tests of dirty maps, against a plain array of bytes.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::content::testing::{Random, seeds};

/// What is dirty, byte by byte: `None` is clean.
fn flatten(map: &DirtyMap, length: usize) -> Vec<Option<u8>> {
    let mut bytes = vec![None; length];
    for (offset, body) in map.iter() {
        for i in 0..body.length() as usize {
            let byte = match body {
                Body::Data(slice) => slice[i],
                Body::Zero(_) => 0,
            };
            let before = bytes[offset as usize + i].replace(byte);
            assert_eq!(before, None, "segments do not overlap");
        }
    }
    bytes
}

fn check_counters(map: &DirtyMap) {
    let data: u64 = map.segments.values().map(|segment| segment.body.data_bytes()).sum();
    assert_eq!(map.data_bytes, data);
    let open: BTreeSet<u64> = map.segments.iter().filter(|(_, s)| !s.journaled).map(|(&offset, _)| offset).collect();
    assert_eq!(map.unjournaled, open);
    let open_bytes: u64 = open.iter().map(|offset| map.segments[offset].body.data_bytes()).sum();
    assert_eq!(map.unjournaled_bytes, open_bytes);
    assert!(map.segments.values().all(|segment| segment.body.length() > 0));
}

#[test]
fn any_order_of_writes_zeros_captures_and_removals_matches_a_byte_array() {
    const LENGTH: u64 = 4000;
    for seed in seeds(60) {
        let mut random = Random::new(seed);
        let mut map = DirtyMap::new();
        let mut model: Vec<Option<u8>> = vec![None; LENGTH as usize];
        let mut age = vec![0u64; LENGTH as usize];
        let mut captured: Option<(Capture, u64)> = None;
        let mut journal: Option<Capture> = None;
        for step in 1..300u64 {
            let offset = random.below(LENGTH);
            let length = random.below(LENGTH - offset).min(1 + random.below(600));
            let range = offset as usize..(offset + length) as usize;
            match random.below(10) {
                0..5 => {
                    let data = random.bytes(length as usize);
                    map.write(offset, &data);
                    model[range.clone()].iter_mut().zip(&data).for_each(|(slot, &byte)| *slot = Some(byte));
                    age[range].fill(step);
                }
                5..7 => {
                    map.zero(offset, length);
                    model[range.clone()].fill(Some(0));
                    age[range].fill(step);
                }
                7 => captured = Some((map.capture(), step)),
                8 => {
                    if let Some((capture, taken)) = captured.take() {
                        let kept = (random.below(2) == 0).then(|| random.below(LENGTH));
                        map.remove_captured(&capture, kept);
                        // A zero segment joined with a newer one stays dirty, which is allowed: it says the same as the base.
                        let now = flatten(&map, LENGTH as usize);
                        for (i, slot) in model.iter_mut().enumerate() {
                            let flushed = age[i] <= taken && kept.is_none_or(|kept| (i as u64) < kept);
                            if flushed && slot.is_some() && now[i].is_none() {
                                *slot = None;
                            } else if flushed && slot.is_some() {
                                assert_eq!(now[i], *slot, "seed {seed}: what stays dirty is what was written");
                            }
                        }
                    }
                }
                _ => match journal.take() {
                    Some(capture) => map.mark_journaled(&capture),
                    None => journal = Some(map.capture_unjournaled()),
                },
            }
            assert_eq!(flatten(&map, LENGTH as usize), model, "seed {seed} step {step}");
            check_counters(&map);
            let all_dirty = model[offset as usize..(offset + length) as usize].iter().all(Option::is_some);
            assert_eq!(map.covers(offset, length), all_dirty, "seed {seed} step {step}");
        }
    }
}

#[test]
fn sequential_small_writes_fill_one_buffer_and_then_the_next() {
    let mut map = DirtyMap::new();
    for i in 0..512u64 {
        map.write(i * 4096, &[i as u8; 4096]);
    }
    assert_eq!(map.segment_count(), 2);
    assert_eq!(map.bytes(), 2 << 20);
}

#[test]
fn a_capture_keeps_its_bytes_while_writers_go_on() {
    let mut map = DirtyMap::new();
    map.write(0, b"before");
    let capture = map.capture();
    map.write(0, b"AFTER!");
    map.write(6, b" and more");
    let Body::Data(slice) = &capture.segments()[0].body else { panic!("data was written") };
    assert_eq!(&slice[..], b"before");
    assert_eq!(capture.bytes(), 6);
}

#[test]
fn removing_a_capture_keeps_what_was_written_over_it_since() {
    let mut map = DirtyMap::new();
    map.write(0, &[1; 100]);
    let capture = map.capture();
    map.write(40, &[2; 20]);
    map.remove_captured(&capture, None);
    assert_eq!(map.iter().map(|(offset, body)| (offset, body.length())).collect::<Vec<_>>(), [(40, 20)]);
}

#[test]
fn removing_a_capture_up_to_a_kept_tail_splits_the_segment_there() {
    let mut map = DirtyMap::new();
    map.write(0, &[1; 100]);
    let capture = map.capture();
    map.remove_captured(&capture, Some(70));
    assert_eq!(map.iter().map(|(offset, body)| (offset, body.length())).collect::<Vec<_>>(), [(70, 30)]);
    assert_eq!(map.capture().certain_end(), Some(70));
}

#[test]
fn a_file_synced_after_every_line_journals_each_byte_once_and_stays_one_segment() {
    let mut map = DirtyMap::new();
    let mut journaled = 0;
    for line in 0..1000u64 {
        map.write(line * 100, &[line as u8; 100]);
        let capture = map.capture_unjournaled();
        journaled += capture.bytes();
        map.mark_journaled(&capture);
        drop(capture);
    }
    assert_eq!(journaled, 100_000);
    // The capture of the last line still shared the buffer when it was marked, and so on backwards: pairs remain.
    assert!(map.segment_count() <= 2, "{} segments", map.segment_count());
    assert_eq!(map.unjournaled_bytes(), 0);
}

#[test]
fn what_is_overwritten_after_being_captured_for_the_journal_stays_unjournaled() {
    let mut map = DirtyMap::new();
    map.write(0, &[1; 100]);
    let capture = map.capture_unjournaled();
    map.write(50, &[2; 5]);
    map.mark_journaled(&capture);
    let open = map.capture_unjournaled();
    assert_eq!(open.segments().iter().map(|s| (s.offset, s.end())).collect::<Vec<_>>(), [(50, 55)]);
}

#[test]
fn a_remnant_does_not_hold_a_large_buffer() {
    let mut map = DirtyMap::new();
    for i in 0..64u64 {
        map.write(i, &vec![i as u8; 1 << 20]);
    }
    let held: usize = map
        .segments
        .values()
        .map(|segment| match &segment.body {
            Body::Data(slice) => slice.buffer.capacity(),
            Body::Zero(_) => 0,
        })
        .sum();
    assert!(held < 3 << 20, "{held} bytes held for {} dirty", map.bytes());
}

#[test]
fn truncating_an_enormous_file_is_one_segment() {
    let mut map = DirtyMap::new();
    map.zero(10, 999 << 40);
    map.zero(4, 6);
    assert_eq!(map.iter().map(|(offset, body)| (offset, body.length())).collect::<Vec<_>>(), [(4, (999 << 40) + 6)]);
    assert_eq!(map.held_bytes(), SEGMENT_OVERHEAD);
}

#[test]
fn a_failed_checkpoint_puts_its_segments_back_below_newer_ones() {
    let mut map = DirtyMap::new();
    map.write(0, &[1; 100]);
    let frozen = map.freeze();
    assert!(map.is_empty());
    map.write(20, &[2; 10]);
    map.zero(90, 20);
    map.restore(frozen);
    let mut expected = vec![Some(1); 110];
    expected[20..30].fill(Some(2));
    expected[90..].fill(Some(0));
    assert_eq!(flatten(&map, 110), expected);
    check_counters(&map);
    let capture = map.capture();
    map.remove_captured(&capture, None);
    assert!(map.is_empty());
}
