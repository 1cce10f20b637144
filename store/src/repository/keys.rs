//! Key slots of a repository: listing, adding, removing, changing.
//!
//! *Ordering*: a slot that replaces another is durable before the other is removed, so that no crash locks the owner out.
//!
//! *Invariants*: the last slot is never removed.

use super::{Repository, open::read_slots};
use crate::{
    backend::ObjectName,
    crypto::{Credential, KdfParams, SlotInfo, SlotName, describe_slot, seal_slot, unlock},
    error::{Error, Result},
};

impl Repository {
    /// The slots, by name. What a slot says of itself is plain, and not authenticated.
    pub fn list_slots(&self) -> Result<Vec<SlotInfo>> {
        let mut slots: Vec<SlotInfo> = Vec::new();
        for (name, bytes) in read_slots(&*self.backend)? {
            match describe_slot(&name, &bytes) {
                Ok(info) if slots.iter().all(|known| known.name != info.name) => slots.push(info),
                Ok(_) => {}
                Err(error) => log::warn!("{error}"),
            }
        }
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(slots)
    }

    /// Adds a slot that opens with another secret.
    pub fn add_slot(
        &self,
        name: &SlotName,
        label: &str,
        credential: &Credential,
        kdf: KdfParams,
        created_ns: i64,
    ) -> Result<()> {
        self.writing()?;
        if read_slots(&*self.backend)?.iter().any(|(other, _)| other == name) {
            return Err(Error::AlreadyExists { path: self.path.display().to_string(), what: format!("slot {name}") });
        }
        self.write_slot(name, label, credential, kdf, created_ns)
    }

    /// Removes a slot. What an attacker copied of it before goes on opening what the repository holds today.
    pub fn remove_slot(&self, name: &SlotName) -> Result<()> {
        self.writing()?;
        let slots = read_slots(&*self.backend)?;
        if !slots.iter().any(|(other, _)| other == name) {
            return Err(Error::NotFound { object: format!("slot {name}") });
        }
        // A slot of which no copy is intact opens nothing, and so is none that could stay alone.
        let is_other = |(other, bytes): &(SlotName, Vec<u8>)| other != name && describe_slot(other, bytes).is_ok();
        if !slots.iter().any(is_other) {
            return Err(Error::LastSlot { slot: name.to_string() });
        }
        for object in name.objects() {
            self.backend.delete(&ObjectName::new(&object)?)?;
        }
        Ok(())
    }

    /// Gives a slot another secret, of any kind. `old` must open it.
    pub fn change_credential(
        &self,
        name: &SlotName,
        old: &Credential,
        new: &Credential,
        kdf: KdfParams,
        created_ns: i64,
    ) -> Result<()> {
        self.writing()?;
        let mut slots = read_slots(&*self.backend)?;
        slots.retain(|(other, _)| other == name);
        let Some((_, bytes)) = slots.first() else { return Err(Error::NotFound { object: format!("slot {name}") }) };
        let label = describe_slot(name, bytes).map(|info| info.label).unwrap_or_default();
        unlock(&slots, self.config.repository, old)?;
        // Copy by copy: at every moment at least two of the three open, with the old secret or the new one.
        self.write_slot(name, &label, new, kdf, created_ns)
    }

    fn write_slot(
        &self,
        name: &SlotName,
        label: &str,
        credential: &Credential,
        kdf: KdfParams,
        created_ns: i64,
    ) -> Result<()> {
        let (repository, epoch) = (self.config.repository, self.keyring.epoch());
        let bytes = seal_slot(&self.master, epoch, repository, name, label, credential, kdf, created_ns)?;
        for object in name.objects() {
            self.backend.replace(&ObjectName::new(&object)?, &bytes)?;
        }
        Ok(())
    }
}
