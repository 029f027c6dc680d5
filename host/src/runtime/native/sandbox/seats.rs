//! Seats: what a call has for itself while it runs, and another after it. A user id of its own, control
//! groups, and the folder, where the call before has not touched it.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    groups::{Group, Groups},
    stage::Folder,
};

/// The seats of a server.
#[derive(Debug)]
pub struct Seats {
    free: Mutex<Free>,
    groups: Option<Groups>,
    users: Option<Range<u64>>,
}

#[derive(Debug, Default)]
struct Free {
    /// Seats that were used. The last first, which is the one whose memory is warm.
    used: Vec<Place>,
    /// Seats whose last call was given up before all its processes were gone.
    doubtful: Vec<Place>,
    /// How many there are in all.
    made: u32,
}

#[derive(Debug)]
struct Place {
    number: u32,
    group: Option<Arc<Group>>,
    /// One that nobody has touched.
    folder: Option<Folder>,
}

impl Place {
    /// Whether nobody ends processes in its group any more.
    fn is_left(&self) -> bool {
        self.group.as_ref().is_none_or(|group| Arc::strong_count(group) == 1)
    }
}

/// A seat, taken; free again when it is dropped, which must be after the last process of its call is gone, or be said
/// to be [doubtful](Self::doubt).
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    doubtful: bool,
    /// Always there until the drop.
    place: Option<Place>,
}

impl Seats {
    /// Seats with these ids of users, where they have some; with groups where there are some.
    #[must_use]
    pub fn new(users: Option<Range<u64>>, groups: Option<Groups>) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), groups, users })
    }

    /// Takes one, with a group that is without limits yet. Not to be done on a thread that starts programs, which may
    /// make none.
    ///
    /// # Errors
    /// When there are groups here, and none can be made for it: what it would bind would not be bound.
    pub fn take(self: &Arc<Self>) -> io::Result<Seat> {
        let (used, number) = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let settled = free.doubtful.iter().position(Place::is_left);
            let settled = settled.map(|at| free.doubtful.swap_remove(at));
            free.used.extend(settled);
            match free.used.pop() {
                Some(place) => (Some(place), 0),
                None => {
                    free.made += 1;
                    (None, free.made - 1)
                }
            }
        };
        let place = used.unwrap_or(Place { number, group: None, folder: None });
        let mut seat = Seat { seats: self.clone(), doubtful: false, place: Some(place) };
        if let (Some(groups), Some(place)) = (&self.groups, &mut seat.place)
            && place.group.is_none()
        {
            place.group = Some(groups.group(place.number)?);
        }
        Ok(seat)
    }
}

#[cfg(test)]
impl Seats {
    /// The folders that free seats were left with.
    pub fn folders(&self) -> Vec<std::path::PathBuf> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.used.iter().filter_map(|place| Some(place.folder.as_ref()?.path().to_owned())).collect()
    }
}

impl Seat {
    /// Its user and group id, where programs have others than the server's. Beyond the configured number,
    /// several have the same.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        let number = self.place.as_ref().map_or(0, |place| place.number);
        let users = self.seats.users.as_ref()?;
        let count = users.end.saturating_sub(users.start).max(1);
        u32::try_from(users.start + u64::from(number) % count).ok()
    }

    /// The folder that it was left with, which nobody has touched.
    #[must_use]
    pub fn take_folder(&mut self) -> Option<Folder> {
        self.place.as_mut()?.folder.take()
    }

    /// Leaves it a folder that nobody has touched.
    pub fn leave_folder(&mut self, folder: Folder) {
        if let Some(place) = &mut self.place {
            place.folder = Some(folder);
        }
    }

    /// Says that processes of its call may be left. Nobody gets it as long as those are being ended: that ends whoever is
    /// in its group.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.place.as_ref()?.group.as_ref()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let mut free = self.seats.free.lock().unwrap_or_else(PoisonError::into_inner);
            if self.doubtful && !place.is_left() { free.doubtful.push(place) } else { free.used.push(place) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::native::sandbox::groups::Bounds;

    #[test]
    fn a_seat_whose_processes_may_be_left_is_nobodys_until_they_are_gone() {
        let Some(groups) = Groups::make(Bounds { processes: 16, cpu_percent: 0 }) else {
            // The kernel lets us have none here, which the sandbox says.
            return;
        };
        let seats = Seats::new(None, Some(groups));
        let number = |seat: &Seat| seat.place.as_ref().expect("taken").number;
        let mut seat = seats.take().expect("a seat");
        let ended_by = seat.group().expect("its group").clone();
        assert_eq!(number(&seat), 0);
        seat.doubt();
        drop(seat);
        let other = seats.take().expect("another seat");
        assert_eq!(number(&other), 1, "the first is still being ended");
        drop(ended_by);
        assert_eq!(number(&seats.take().expect("the first seat")), 0);
    }
}
