//! The floor: the least that tracked delivery over tokio channels can cost.
//!
//! A source moves batches of `u64` to a sink; each value has a slot in a slab that only the source touches,
//! with a random word in it; the sink hands each batch's range back, and the source folds the words back in
//! until they cancel. No types, no routing, no metrics, no timeouts, no lifecycle.

use tokio::sync::mpsc;

struct Batch {
    values: Vec<u64>,
    first: u64,
}

const PENDING: u64 = 32_768;

fn word(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

/// Moves `total` values in batches of `size`, over one channel or through a task in between. Returns how many
/// were seen to be done.
pub(crate) async fn run(total: u64, size: u64, hop: bool) -> u64 {
    let (source, mut next) = mpsc::channel::<Batch>(16);
    // More than can be pending, so that the sink never waits for the source.
    let (back, mut done) = mpsc::channel::<Batch>(PENDING as usize);
    if hop {
        let (forward, behind) = mpsc::channel(16);
        let mut from = std::mem::replace(&mut next, behind);
        tokio::spawn(async move {
            while let Some(batch) = from.recv().await {
                if forward.send(batch).await.is_err() {
                    break;
                }
            }
        });
    }
    let sink = tokio::spawn(async move {
        while let Some(batch) = next.recv().await {
            batch.values.iter().for_each(|value| {
                std::hint::black_box(value);
            });
            if back.send(batch).await.is_err() {
                break;
            }
        }
    });
    let emitting = tokio::spawn(async move {
        let mut slab = vec![0u64; PENDING as usize];
        let (mut emitted, mut acked) = (0, 0);
        let mut spare: Vec<Vec<u64>> = Vec::new();
        let fold = |batch: &Batch, slab: &mut Vec<u64>| {
            let mut complete = 0;
            for n in batch.first..batch.first + batch.values.len() as u64 {
                let slot = &mut slab[(n % PENDING) as usize];
                *slot ^= word(n);
                complete += u64::from(*slot == 0);
            }
            complete
        };
        while acked < total {
            while let Ok(mut batch) = done.try_recv() {
                acked += fold(&batch, &mut slab);
                batch.values.clear();
                spare.push(batch.values);
            }
            if acked == total {
                break;
            }
            let room = (total - emitted).min(PENDING - (emitted - acked)).min(size);
            if room < size && emitted < total || room == 0 {
                let Some(batch) = done.recv().await else { break };
                acked += fold(&batch, &mut slab);
                continue;
            }
            let mut values = spare.pop().unwrap_or_default();
            for n in emitted..emitted + room {
                slab[(n % PENDING) as usize] = word(n);
                values.push(n);
            }
            if source.send(Batch { values, first: emitted }).await.is_err() {
                break;
            }
            emitted += room;
        }
        acked
    });
    let acked = emitting.await.unwrap_or(0);
    let _ = sink.await;
    acked
}
