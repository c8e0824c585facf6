// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Users and capabilities.

use std::fmt;
use std::str::FromStr;

use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

/// A user and a group, by their numbers, neither of which is root. Written `UID:GID`, also in configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User {
    uid: u32,
    gid: u32,
}

/// Reasons why a text is no [`User`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUser {
    /// The form is not `UID:GID`.
    #[error("a user is given as UID:GID, two numbers, as in 10002:10002")]
    Form,
    /// The number is that of root, or the one that means "none" to the kernel.
    #[error("{0} cannot be used as UID or GID: use numbers from 1 to 4294967294")]
    Number(u32),
}

impl User {
    /// The user `uid` with no group but `gid`.
    ///
    /// # Errors
    /// If one of them is that of root, or the one that means "none".
    pub fn new(uid: u32, gid: u32) -> std::result::Result<Self, NotAUser> {
        match [uid, gid].into_iter().find(|number| matches!(*number, 0 | u32::MAX)) {
            Some(number) => Err(NotAUser::Number(number)),
            None => Ok(Self { uid, gid }),
        }
    }

    /// The number of the user.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// The number of the group.
    #[must_use]
    pub fn gid(self) -> u32 {
        self.gid
    }

    /// Whether the process runs as this user.
    fn is_present(self) -> bool {
        geteuid().as_raw() == self.uid && getegid().as_raw() == self.gid
    }

    /// Changes the calling thread to this user for good.
    pub(crate) fn assume(self) -> Result<()> {
        if self.is_present() {
            return Ok(());
        }
        // In this order: each step removes the right to make the one before.
        set_thread_groups(&[])?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }
}

impl FromStr for User {
    type Err = NotAUser;

    fn from_str(text: &str) -> std::result::Result<Self, NotAUser> {
        let (uid, gid) = text.split_once(':').ok_or(NotAUser::Form)?;
        let number = |text: &str| text.parse().map_err(|_| NotAUser::Form);
        Self::new(number(uid)?, number(gid)?)
    }
}

impl TryFrom<String> for User {
    type Error = NotAUser;

    fn try_from(text: String) -> std::result::Result<Self, NotAUser> {
        text.parse()
    }
}

impl From<User> for String {
    fn from(user: User) -> Self {
        user.to_string()
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Calls `action` with the effective user `uid` and group `gid` of the calling thread, which decide what it
/// may access. Its capabilities are not effective meanwhile if `uid` is not root.
///
/// # Errors
/// If the process is neither root nor that user.
pub fn with_effective<T>(uid: u32, gid: u32, action: impl FnOnce() -> T) -> std::io::Result<T> {
    let _ids = EffectiveIds::assume(Uid::from_raw(uid), Gid::from_raw(gid))?;
    Ok(action())
}

/// Other effective IDs of the calling thread, until it is dropped.
struct EffectiveIds {
    uid: Uid,
    gid: Gid,
}

impl EffectiveIds {
    fn assume(uid: Uid, gid: Gid) -> Result<Self> {
        let former = Self { uid: geteuid(), gid: getegid() };
        set_thread_res_gid(None, gid, None)?;
        set_thread_res_uid(None, uid, None)?;
        Ok(former)
    }
}

impl Drop for EffectiveIds {
    fn drop(&mut self) {
        let (uid, gid) = (self.uid, self.gid);
        if set_thread_res_uid(None, uid, None).and_then(|()| set_thread_res_gid(None, gid, None)).is_err() {
            // The process must not go on as another user. Its real IDs are the former ones, so this does not
            // happen.
            std::process::abort();
        }
    }
}

/// Removes all capabilities but `kept` from the bounding set of the calling thread: programs that it executes
/// cannot gain them. A process without the right to do so has no capabilities to pass on.
pub(crate) fn bound_capabilities(kept: CapabilitySet) -> Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // The kernel has no capability with this number or a higher one.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Drops all capabilities of the calling thread but `kept` for good.
pub(crate) fn keep_capabilities(kept: CapabilitySet) -> Result<()> {
    let had = capabilities(None)?.permitted;
    let sets =
        CapabilitySets { effective: kept & had, permitted: kept & had, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_ids_last_for_one_action() {
        let own = (geteuid(), getegid());
        let (uid, gid) = if own.0.is_root() { (10002, 10003) } else { (own.0.as_raw(), own.1.as_raw()) };
        let ids = || (geteuid().as_raw(), getegid().as_raw());
        assert_eq!(with_effective(uid, gid, ids).unwrap(), (uid, gid));
        assert_eq!((geteuid(), getegid()), own);
    }

    #[test]
    fn user_is_two_numbers_other_than_root_and_none() {
        assert_eq!("10002:10003".parse(), Ok(User { uid: 10002, gid: 10003 }));
        for wrong in ["", "10002", "10002:", ":10002", "guest-a:10002", "1:2:3", "-1:5"] {
            assert_eq!(wrong.parse::<User>(), Err(NotAUser::Form), "{wrong}");
        }
        assert_eq!("0:10002".parse::<User>(), Err(NotAUser::Number(0)));
        assert_eq!("10002:0".parse::<User>(), Err(NotAUser::Number(0)));
        assert_eq!("4294967295:5".parse::<User>(), Err(NotAUser::Number(u32::MAX)));
    }
}
