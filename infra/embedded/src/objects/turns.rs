//! Many downloads take turns, so that they are not all ready to run at once: lookups stand in the same queue.
//!
//! 1. A download that could send its next chunk queues up. If nobody conducts, it starts a task that does.
//! 2. The conductor tells the first few, and yields: the runtime goes on with it once what is ready has run and new
//!    requests were looked for. When nobody waits any more, it ends.
//! 3. Who was told reads and sends a chunk. *Its client is gone, or reads no further*: the conductor waits for nobody.

use super::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<()>>,
    conducted: bool,
}

/// How many are told at a time.
pub(super) const AT_A_TIME: usize = 4;

impl Turns {
    /// Queues up. What is returned is there when it is one's turn.
    pub(super) fn wait(self: &Arc<Self>) -> oneshot::Receiver<()> {
        let (told, turn) = oneshot::channel();
        let mut queue = lock(&self.0);
        queue.waiting.push_back(told);
        if !std::mem::replace(&mut queue.conducted, true) {
            tokio::spawn(Arc::clone(self).conduct());
        }
        turn
    }

    async fn conduct(self: Arc<Self>) {
        while self.tell() {
            tokio::task::yield_now().await;
        }
    }

    /// Tells the first few. Returns whether there was anybody.
    fn tell(&self) -> bool {
        let mut queue = lock(&self.0);
        let few = queue.waiting.len().min(AT_A_TIME);
        for told in queue.waiting.drain(..few) {
            // Somebody who went away needs no turn.
            let _gone = told.send(());
        }
        queue.conducted = few > 0;
        few > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_have_their_turn_in_order_whoever_goes_away_or_does_not_listen() {
        let turns = Arc::new(Turns::default());
        for _ in 0..2 {
            let mut waiting: Vec<_> = (0..10 * AT_A_TIME).map(|_| turns.wait()).collect();
            drop(waiting.drain(2..5));
            // The first ones never look.
            let last = waiting.pop().unwrap();
            last.await.unwrap();
            assert!(waiting.iter_mut().all(|turn| turn.try_recv().is_ok()), "those before it were told");
            while lock(&turns.0).conducted {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn only_a_few_are_told_before_others_run() {
        let turns = Arc::new(Turns::default());
        let mut waiting: Vec<_> = (0..10 * AT_A_TIME).map(|_| turns.wait()).collect();
        let mut told = 0;
        while told < waiting.len() {
            tokio::task::yield_now().await;
            let now = waiting.iter_mut().flat_map(oneshot::Receiver::try_recv).count();
            assert!(now <= AT_A_TIME, "{now} at once");
            told += now;
        }
    }
}
