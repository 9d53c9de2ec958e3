//! Things by name, for a host whose names know their hashes: nothing is hashed here.
//!
//! Short names lie in the table itself. Whoever looks one up need not follow a pointer to compare it, which is two more
//! lines of memory for every decision where there are many queues.

use compact_str::CompactString;
use hashbrown::HashTable;

/// A table of things by name. Equal names have to come with equal hashes. One thread at a time may change it.
#[derive(Clone, Debug)]
pub struct Names<T>(HashTable<Entry<T>>);

#[derive(Clone, Debug)]
struct Entry<T> {
    name: CompactString,
    thing: T,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(HashTable::new())
    }
}

impl<T> Names<T> {
    /// Returns what is stored by a name.
    #[inline]
    pub fn get(&self, hash: u64, name: &str) -> Option<&T> {
        self.0.find(hash, |entry| entry.name == name).map(|entry| &entry.thing)
    }

    /// Stores a thing by a name that has none yet. `hash_of` returns the hash of the name of what is stored already, for
    /// a table that grows: an entry does not keep it.
    pub fn insert(&mut self, hash: u64, name: &str, thing: T, hash_of: impl Fn(&T) -> u64) {
        let entry = Entry { name: name.into(), thing };
        self.0.insert_unique(hash, entry, |entry| hash_of(&entry.thing));
    }

    /// Stores nothing by a name any more; returns what was stored.
    pub fn remove(&mut self, hash: u64, name: &str) -> Option<T> {
        self.0.find_entry(hash, |entry| entry.name == name).ok().map(|entry| entry.remove().0.thing)
    }

    /// Returns how many things are stored.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns everything, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|entry| &entry.thing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::Names;

    /// Few hashes, so that most names share theirs with others.
    fn hash_of(name: &str) -> u64 {
        name.len() as u64 % 3
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(String),
        Remove(String),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        // Above 24 letters they do not lie in the table itself.
        let name =
            (0..30usize, prop::sample::select(vec!["a", "b"])).prop_map(|(length, letter)| letter.repeat(length));
        let act = (name, 0..4u8).prop_map(|(name, kind)| if kind > 0 { Act::Insert(name) } else { Act::Remove(name) });
        prop::collection::vec(act, 0..100)
    }

    proptest! {
        #[test]
        fn does_as_a_map(acts in acts()) {
            let (mut names, mut model) = (Names::default(), HashMap::new());
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Insert(name) if !model.contains_key(&name) => {
                        names.insert(hash_of(&name), &name, (name.clone(), number), |(name, _)| hash_of(name));
                        model.insert(name, number);
                    }
                    Act::Insert(name) => {
                        prop_assert_eq!(names.get(hash_of(&name), &name).map(|(_, number)| number), model.get(&name));
                    }
                    Act::Remove(name) => {
                        let removed = names.remove(hash_of(&name), &name).map(|(_, number)| number);
                        prop_assert_eq!(removed, model.remove(&name));
                    }
                }
                prop_assert_eq!((names.len(), names.is_empty()), (model.len(), model.is_empty()));
            }
            prop_assert_eq!(names.iter().cloned().collect::<HashMap<_, _>>(), model);
        }
    }
}
