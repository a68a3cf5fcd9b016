//! The scheduler at the other end of a launch stream, as one that reserves room: it is told when there is some.

use std::sync::Arc;
use std::time::Duration;

use muster_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::Core;
use crate::resources::Resources;
use crate::table::shares::Reservation;
use crate::uplink::home::normal;

/// Whoever has least here mostly fills what becomes free at once, with what waits here or what it hears of by a result. What
/// is still free after so long is offered.
const SETTLES_WITHIN: Duration = Duration::from_millis(5);
/// A reservation is looked at this often, whatever happens: its time may be up.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// See the module. Dropping it ends the reservation.
pub(super) struct Reserver {
    core: Arc<Core>,
    /// None: it has not said who it is.
    scheduler: Option<Arc<str>>,
    /// When it told the reservation that stands, if there is one.
    reserved: Option<Instant>,
    changes: watch::Receiver<()>,
    /// When its reservation is looked at.
    look_at: Instant,
    /// What it was told last.
    told: v1::Account,
}

impl Drop for Reserver {
    fn drop(&mut self) {
        if let (Some(scheduler), Some(told)) = (&self.scheduler, self.reserved) {
            self.core.table.end_reservation(scheduler, told);
        }
    }
}

impl Reserver {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let changes = core.table.room_changed.subscribe();
        let told = v1::Account::default();
        Self { core, scheduler: None, reserved: None, changes, look_at: Instant::now(), told }
    }

    /// Takes in what came with a message.
    pub(super) fn heard(&mut self, reservation: Option<v1::Reservation>) {
        let Some(reservation) = reservation else { return };
        let scheduler = normal(&reservation.scheduler);
        let now = Instant::now();
        match reservation.need.as_ref().filter(|_| reservation.count > 0) {
            Some(need) => {
                let need = Resources::from_wire(Some(need));
                self.core
                    .table
                    .reserve(&scheduler, Reservation::of(need, (reservation.count, reservation.weight), now));
                self.reserved = Some(now);
            }
            None => {
                if let Some(told) = self.reserved.take() {
                    self.core.table.end_reservation(&scheduler, told);
                }
            }
        }
        self.scheduler = Some(scheduler);
        self.look_at = now + SETTLES_WITHIN;
    }

    pub(super) fn answer(&mut self, sequence: u64, refused: Vec<v1::Refusal>) -> v1::LaunchTasksResponse {
        let account = self.scheduler.as_ref().map(|scheduler| self.core.table.account_for(scheduler));
        if let Some(account) = &account {
            self.told.clone_from(account);
        }
        v1::LaunchTasksResponse { sequence, refused, account }
    }

    /// Waits until there is room for what it reserves of which it has not been told. Cancel safe.
    pub(super) async fn offered(&mut self) -> v1::LaunchTasksResponse {
        loop {
            let Some(scheduler) = self.scheduler.clone().filter(|_| self.reserved.is_some()) else {
                std::future::pending::<()>().await;
                continue;
            };
            let look_at = self.look_at;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(look_at) => {}
                // The sender is the table's, which lives as long as this.
                _ = self.changes.changed(), if look_at > Instant::now() + SETTLES_WITHIN => {
                    self.look_at = Instant::now() + SETTLES_WITHIN;
                    continue;
                }
            }
            let now = Instant::now();
            self.look_at = now + LOOK_EVERY;
            match self.core.table.offer(&scheduler, now) {
                Err(()) => self.reserved = None,
                Ok(Some(account)) if account != self.told => {
                    self.told.clone_from(&account);
                    return v1::LaunchTasksResponse { sequence: 0, refused: Vec::new(), account: Some(account) };
                }
                Ok(_) => {}
            }
        }
    }
}
