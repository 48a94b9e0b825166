//! What a sweep does with containers and entities that were deleted.

use super::Sweeper;
use crate::service::removal::drain;

impl Sweeper<'_> {
    /// Removes what is left of containers and entities that were deleted. What an entity waits for may go with this sweep.
    pub(in crate::service::sweep) async fn removed(&mut self) {
        for row in std::mem::take(&mut self.inventory.removed_containers) {
            if self.goes(|| format!("what is left of {}, which was deleted", row.repository)) {
                let drained = drain::container(self.app, &row, None).await;
                self.tried(&row.repository, drained.map(drop));
            }
            self.swept.removed += 1;
        }
        for row in std::mem::take(&mut self.inventory.removed_entities) {
            if row.gone {
                continue;
            }
            if self.goes(|| format!("what is left of {}, which was deleted", row.name)) {
                let drained = drain::entity(self.app, &row, None).await;
                self.tried(&row.name, drained.map(drop));
            }
            self.swept.removed += 1;
        }
    }
}
