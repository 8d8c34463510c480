//! Ids of what a call publishes, made again by its repeat.
//!
//! They begin with the millisecond of the cause's id, if that names one: so that
//! the store, which knows of each part of its index from when to when its ids
//! are, need not ask the old parts whether it has them.

use uuid::Uuid;

use crate::machine::Call;

/// Unlike [`Call::derived`] it tells when.
pub(crate) fn seed_of(call: &Call, what: &str) -> Uuid {
    let cause = call.cause.as_ref().and_then(|cause| Uuid::try_parse(&cause.id).ok());
    dated(call.derived(what), cause)
}

/// Of the event number `i` of what has this seed.
pub(crate) fn id_of(seed: Uuid, i: usize) -> String {
    dated(Uuid::new_v5(&seed, i.to_string().as_bytes()), Some(seed)).to_string()
}

fn dated(id: Uuid, parent: Option<Uuid>) -> Uuid {
    let Some(parent) = parent.filter(|parent| parent.get_version_num() == 7) else { return id };
    let mut bytes = id.into_bytes();
    bytes[..6].copy_from_slice(&parent.as_bytes()[..6]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_the_time_of_its_parent_and_differs_from_its_siblings() {
        let seed = Uuid::try_parse("0198c0de-1234-7abc-8def-000000000001").unwrap();
        let ids: Vec<String> = (0..3).map(|i| id_of(seed, i)).collect();
        assert!(ids.iter().all(|id| id.starts_with("0198c0de-1234-7")), "{ids:?}");
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        assert_eq!(ids[0], id_of(seed, 0));
    }

    #[test]
    fn what_has_no_time_gets_none() {
        let seed = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"a command");
        assert_eq!(id_of(seed, 0), Uuid::new_v5(&seed, b"0").to_string());
    }
}
