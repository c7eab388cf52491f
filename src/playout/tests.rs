use super::chunks::CHUNK_SAMPLES;
use super::*;
use crate::audio::testing::Rng;

const A: ItemId = ItemId(1);
const B: ItemId = ItemId(2);

/// Plays until nothing is left; the audio, and how much of it each frame held.
fn drain(queue: &mut Playout) -> (Vec<i16>, Vec<Played>) {
    let (mut pcm, mut played) = (Vec::new(), Vec::new());
    let mut frame = [0; FRAME_SAMPLES];
    while let Some(next) = queue.pop(&mut frame) {
        pcm.extend_from_slice(&frame[..next.samples]);
        played.push(next);
    }
    (pcm, played)
}

#[test]
fn audio_comes_out_as_it_went_in_whatever_its_pieces() {
    let mut rng = Rng::new(3);
    let said: Vec<i16> = (0..5 * CHUNK_SAMPLES + 77).map(|_| rng.next() as i16).collect();
    let mut queue = Playout::new();
    let (mut rest, mut heard) = (&said[..], Vec::new());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(rng.below(9_000) as usize));
        assert_eq!(queue.push(A, now), Push::Queued);
        rest = later;
        let mut frame = [0; FRAME_SAMPLES];
        for _ in 0..rng.below(8) {
            if queue.queued_samples() >= FRAME_SAMPLES {
                let played = queue.pop(&mut frame).unwrap();
                assert_eq!((played.item, played.samples), (A, FRAME_SAMPLES));
                heard.extend_from_slice(&frame);
            }
        }
    }
    queue.end_item(A);
    let (tail, played) = drain(&mut queue);
    heard.extend(tail);
    assert_eq!(heard, said);
    assert!(played.last().unwrap().last);
}

#[test]
fn a_frame_holds_one_item_and_says_where_items_begin_and_end() {
    let mut queue = Playout::new();
    queue.push(A, &[1; 500]);
    queue.push(B, &[2; 480]);
    let (pcm, played) = drain(&mut queue);
    assert_eq!(pcm, [&[1; 500][..], &[2; 480]].concat());
    let told: Vec<_> = played.iter().map(|p| (p.item, p.samples, p.first, p.last)).collect();
    assert_eq!(told, [(A, 480, true, false), (A, 20, false, true), (B, 480, true, false)]);
}

#[test]
fn a_flush_says_what_was_played_and_closes_all_that_waited() {
    let mut queue = Playout::new();
    assert_eq!(queue.flush(|_| {}), None);
    queue.push(A, &[1; 1_000]);
    queue.push(B, &[2; 2_000]);
    queue.pop(&mut [0; FRAME_SAMPLES]);
    assert_eq!(queue.flush(|_| {}), Some(Flush { item: A, played: 480, flushed: 2_520 }));
    assert_eq!((queue.push(A, &[1; 5]), queue.push(B, &[2; 5])), (Push::Closed, Push::Closed));
    assert_eq!((queue.queued_samples(), queue.flush(|_| {})), (0, None));
    assert_eq!(queue.push(ItemId(3), &[3; 5]), Push::Queued);
}

#[test]
fn an_item_that_ran_dry_is_still_playing_until_it_ends() {
    let mut queue = Playout::new();
    queue.push(A, &[1; 480]);
    queue.pop(&mut [0; FRAME_SAMPLES]);
    assert_eq!(queue.pop(&mut [0; FRAME_SAMPLES]), None);
    assert_eq!(queue.flush(|_| {}), Some(Flush { item: A, played: 480, flushed: 0 }));
    let mut queue = Playout::new();
    queue.push(A, &[1; 480]);
    queue.pop(&mut [0; FRAME_SAMPLES]);
    queue.end_item(A);
    assert_eq!(queue.flush(|_| {}), None);
    assert_eq!(queue.push(A, &[1]), Push::Closed, "it ended");
}

#[test]
fn a_full_queue_closes_the_item_and_plays_what_it_has() {
    let mut queue = Playout::new();
    let second = vec![7; 24_000];
    for _ in 0..120 {
        assert_eq!(queue.push(A, &second), Push::Queued);
    }
    assert_eq!(queue.push(A, &[7]), Push::Full);
    assert_eq!(queue.push(A, &[7]), Push::Closed);
    assert_eq!(queue.push(B, &[7]), Push::Full);
    assert_eq!(queue.queued_samples(), QUEUE_SAMPLES_MAX);
    let (_, played) = drain(&mut queue);
    assert_eq!((played.len(), played.last().unwrap().last), (6_000, true));
    for id in 10..10 + QUEUE_ITEMS_MAX as u32 {
        assert_eq!(queue.push(ItemId(id), &[1]), Push::Queued);
    }
    assert_eq!(queue.push(ItemId(9_999), &[1]), Push::Full);
}

#[test]
fn memory_follows_what_waits() {
    let mut queue = Playout::new();
    assert_eq!(queue.memory_bytes(), 0);
    queue.push(A, &vec![1; QUEUE_SAMPLES_MAX]);
    let full = queue.memory_bytes();
    assert!((2 * QUEUE_SAMPLES_MAX..2 * QUEUE_SAMPLES_MAX + 10_000).contains(&full), "{full} bytes");
    for _ in 0..3_000 {
        queue.pop(&mut [0; FRAME_SAMPLES]);
    }
    assert!(queue.memory_bytes() < full / 2 + 30_000, "half is played, {} bytes held", queue.memory_bytes());
    drain(&mut queue);
    let one_chunk = 30_000;
    assert!(queue.memory_bytes() <= one_chunk, "drained, {} bytes held", queue.memory_bytes());
    queue.push(A, &[1; 100]);
    queue.flush(|_| {});
    assert!(queue.memory_bytes() <= one_chunk, "flushed, {} bytes held", queue.memory_bytes());
}
