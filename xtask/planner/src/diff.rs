//! [`System`]: what two configurations are compared by, and [`compare`]: how they differ, in the user's words.
//!
//! A profile ([`profile`]), a configuration tree ([`tree`]) and a bundle ([`bundle`]) are made into the same facts about
//! the same things, and two of them are compared as far as both know. Text and JSON are [`text`]'s.

pub mod bundle;
pub mod profile;
pub mod text;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use citrine_formats::manifest::Sha256;

/// What a fact is about. Things are told in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The configuration as a whole.
    System,
    /// The hypervisor.
    Hypervisor,
    /// A partition.
    Partition,
    /// A memory area that is not one partition's own.
    Area,
    /// A byte channel between two partitions.
    Channel,
    /// A file of a bundle that is no partition's image.
    Part,
    /// What a bundle was made from.
    Input,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Hypervisor => "hypervisor",
            Self::Partition => "partition",
            Self::Area => "area",
            Self::Channel => "channel",
            Self::Part => "part",
            Self::Input => "input",
        }
    }
}

/// What is said of a thing. Facts are told in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum What {
    /// A value that has the word of its detail: `title`, `board`.
    Named,
    /// Name for people.
    Label,
    /// The CPUs.
    Cpus,
    /// Bytes of memory.
    Memory,
    /// True-physical address of the memory.
    MemoryAddress,
    /// Guest-physical address of shared memory.
    GuestAddress,
    /// The partitions that take part.
    Partitions,
    /// Mux channel of the console.
    Console,
    /// Boot arguments.
    Bootargs,
    /// An image; the detail is its role.
    Image,
    /// Its bytes.
    ImageBytes,
    /// Where it is loaded.
    ImageLoad,
    /// Most bytes that it may have.
    ImageWindow,
    /// Where it goes in the partition.
    ImageGuest,
    /// Window of the guest's tree.
    Tree,
    /// A device; the detail is its path or alias.
    Device,
    /// How it is assigned, where that is not as usual.
    DeviceHow,
    /// A device behind the portals.
    PortalDevice,
    /// Portals, or numbers of the data path; the detail says of what.
    Numbers,
    /// A device that no profile names by itself: a portal, a resource of the data path, the hypervisor's own.
    Resource,
    /// What devices may read and write.
    Dma,
    /// Whether privileged instructions take a short way.
    FastTraps,
    /// The partitions that this one manages.
    Manages,
    /// Whether it starts by itself.
    Starts,
    /// Devicetree source of the profile's own.
    Dts,
}

/// A fact's name: what is said, and of what in the thing where there may be several.
pub type Key = (What, String);

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A value for people.
    Text(String),
    /// Names of partitions.
    Partitions(BTreeSet<String>),
    /// Left to placement, to the board or to whoever loads the image; how that is said.
    Open(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Open(text) => f.write_str(text),
            Self::Partitions(names) if names.is_empty() => f.write_str("none"),
            Self::Partitions(names) => f.write_str(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// The facts of one thing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Thing {
    /// Name of its node in the configuration tree, which is all that a tree knows.
    pub node: String,
    /// What is said of it.
    pub facts: BTreeMap<Key, Value>,
}

impl Thing {
    /// A thing with this node, of which nothing is said yet.
    fn new(node: impl Into<String>) -> Self {
        Self { node: node.into(), facts: BTreeMap::new() }
    }

    fn say(&mut self, what: What, value: Value) {
        self.say_of(what, "", value);
    }

    fn say_of(&mut self, what: What, detail: &str, value: Value) {
        self.facts.insert((what, detail.to_owned()), value);
    }

    fn text(&mut self, what: What, text: impl fmt::Display) {
        self.say(what, Value::Text(text.to_string()));
    }

    fn text_of(&mut self, what: What, detail: &str, text: impl fmt::Display) {
        self.say_of(what, detail, Value::Text(text.to_string()));
    }
}

/// Where a description comes from, which decides what it can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A profile alone.
    Profile,
    /// A profile, placed on a board.
    Placed,
    /// A configuration tree.
    Tree,
    /// A bundle.
    Bundle,
}

impl Source {
    /// Whether a description from here would say it, if there were anything to say.
    fn knows(self, kind: Kind, what: What, detail: &str) -> bool {
        match (kind, what) {
            (Kind::Part | Kind::Input, _) => self == Self::Bundle,
            (_, What::Starts) => self == Self::Tree,
            (_, What::Resource) => self != Self::Profile,
            (_, What::DeviceHow | What::PortalDevice | What::Numbers | What::Dts) => self != Self::Tree,
            (_, What::Image) if detail != "kernel" && detail != "rootfs" => self == Self::Tree,
            (_, What::ImageBytes) => matches!(self, Self::Tree | Self::Bundle),
            (Kind::System, What::Named) => match detail {
                "board" => matches!(self, Self::Placed | Self::Bundle),
                "SoC" | "core" | "epoch" | "time" => self == Self::Bundle,
                _ => self != Self::Tree,
            },
            (Kind::Hypervisor, What::Bootargs | What::Device | What::Named) | (_, What::Dma) => self != Self::Tree,
            _ => true,
        }
    }

    /// Whether its things have the names that the profile gives them, and not those of nodes alone.
    fn has_names(self) -> bool {
        self != Self::Tree
    }
}

/// A configuration as facts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct System {
    /// Where it comes from.
    pub source: Source,
    /// What is said of each thing.
    pub things: BTreeMap<(Kind, String), Thing>,
    /// SHA-256 of the whole, where that says more than the facts.
    pub bytes: Option<Sha256>,
}

impl System {
    fn new(source: Source) -> Self {
        Self { source, things: BTreeMap::new(), bytes: None }
    }

    /// Adds a thing; one whose name is taken gets a number.
    fn add(&mut self, kind: Kind, name: &str, thing: Thing) {
        let names = std::iter::once(name.to_owned()).chain((2..).map(|number| format!("{name} ({number})")));
        let free = names.map(|name| (kind, name)).find(|key| !self.things.contains_key(key));
        self.things.extend(free.map(|key| (key, thing)));
    }

    /// The same with the names of `other` for the things that have their nodes.
    fn called_like(&self, other: &Self) -> Self {
        let name_of = |kind: Kind, node: &str| {
            let same = |((other, _), thing): &(&(Kind, String), &Thing)| *other == kind && thing.node == node;
            other.things.iter().find(same).map(|((_, name), _)| name.clone())
        };
        let mut renamed = Self { source: self.source, things: BTreeMap::new(), bytes: self.bytes };
        let (known, strangers): (Vec<_>, Vec<_>) =
            self.things.iter().partition(|((kind, _), thing)| name_of(*kind, &thing.node).is_some());
        // Those that the other one knows have the first right to their names.
        for ((kind, name), thing) in known.into_iter().chain(strangers) {
            let mut thing = thing.clone();
            for value in thing.facts.values_mut() {
                if let Value::Partitions(nodes) = value {
                    let named = |node: &String| name_of(Kind::Partition, node).unwrap_or_else(|| node.clone());
                    *nodes = nodes.iter().map(named).collect();
                }
            }
            renamed.add(*kind, &name_of(*kind, &thing.node).unwrap_or_else(|| name.clone()), thing);
        }
        renamed
    }

    /// Decides what was left open by what a description of the same configuration says.
    fn decide(&mut self, placed: &Self) {
        for (key, theirs) in &placed.called_like(self).things {
            let Some(thing) = self.things.get_mut(key) else { continue };
            for (fact, value) in &theirs.facts {
                if matches!(thing.facts.get(fact), None | Some(Value::Open(_))) {
                    thing.facts.insert(fact.clone(), value.clone());
                }
            }
        }
        for thing in self.things.values_mut() {
            thing.facts.retain(|_, value| !matches!(value, Value::Open(_)));
        }
    }
}

/// One way in which two configurations differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// What kind of thing.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// How it differs.
    pub change: Change,
}

/// How a thing differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Only the second configuration has it: what that says of it.
    New(Vec<(Key, Value)>),
    /// Only the first has it: what that says of it.
    Gone(Vec<(Key, Value)>),
    /// Both have it, with another value; `None` where there is none.
    Fact {
        /// What is said.
        key: Key,
        /// In the first.
        before: Option<Value>,
        /// In the second.
        after: Option<Value>,
    },
}

/// How `after` differs from `before`, as far as both know; in an order that does not depend on which is which.
pub fn compare(before: &System, after: &System) -> Vec<Difference> {
    let renamed = match (before.source.has_names(), after.source.has_names()) {
        (true, false) => (None, Some(after.called_like(before))),
        (false, true) => (Some(before.called_like(after)), None),
        _ => (None, None),
    };
    let (before, after) = (renamed.0.as_ref().unwrap_or(before), renamed.1.as_ref().unwrap_or(after));
    let mut found = Vec::new();
    let names: BTreeSet<&(Kind, String)> = before.things.keys().chain(after.things.keys()).collect();
    for (kind, name) in names {
        let knows = |source: Source| match kind {
            Kind::Part | Kind::Input => source.knows(*kind, What::Named, ""),
            _ => true,
        };
        if !knows(before.source) || !knows(after.source) {
            continue;
        }
        let mut differs = |change| found.push(Difference { kind: *kind, name: name.clone(), change });
        let facts = |thing: &Thing| thing.facts.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let key = (*kind, name.clone());
        match (before.things.get(&key), after.things.get(&key)) {
            (Some(a), Some(b)) => changed(*kind, (before.source, a), (after.source, b), &mut differs),
            (Some(a), None) => differs(Change::Gone(facts(a))),
            (None, Some(b)) => differs(Change::New(facts(b))),
            (None, None) => {}
        }
    }
    let other_bytes = before.bytes.zip(after.bytes).filter(|(a, b)| a != b);
    if let (true, Some((a, b))) = (found.is_empty(), other_bytes) {
        let text = |hash: Sha256| Some(Value::Text(format!("sha256 {hash}")));
        let key = (What::Named, "something that is no part of a profile".to_owned());
        let change = Change::Fact { key, before: text(a), after: text(b) };
        found.push(Difference { kind: Kind::System, name: String::new(), change });
    }
    found
}

/// What is said otherwise of one thing.
fn changed(kind: Kind, before: (Source, &Thing), after: (Source, &Thing), differs: &mut dyn FnMut(Change)) {
    let keys: BTreeSet<&Key> = before.1.facts.keys().chain(after.1.facts.keys()).collect();
    for key in keys {
        let (what, detail) = key;
        if !before.0.knows(kind, *what, detail) || !after.0.knows(kind, *what, detail) {
            continue;
        }
        let values = (before.1.facts.get(key), after.1.facts.get(key));
        let is_open = |value: Option<&Value>| matches!(value, Some(Value::Open(_)));
        // An optional device may be left out.
        let both = *what == What::Device || (values.0.is_some() && values.1.is_some());
        // What one leaves open, the other may decide, unless both could have.
        let undecided = before.0 != after.0 && both && (is_open(values.0) || is_open(values.1));
        if values.0 == values.1 || undecided || follows(*what, detail, before.1, after.1) {
            continue;
        }
        differs(Change::Fact { key: key.clone(), before: values.0.cloned(), after: values.1.cloned() });
    }
}

/// Whether a fact about an image is only there, or not, because the image is.
fn follows(what: What, role: &str, before: &Thing, after: &Thing) -> bool {
    let image = (What::Image, role.to_owned());
    matches!(what, What::ImageBytes | What::ImageLoad | What::ImageWindow | What::ImageGuest)
        && before.facts.contains_key(&image) != after.facts.contains_key(&image)
}

/// The value of a size and a hash: `2.1 MiB, sha256 5f1d…`.
fn bytes(size: u64, sha256: Sha256) -> Value {
    let hash = sha256.to_string();
    let size = citrine_formats::addr::Size(size);
    Value::Text(format!("{size}, sha256 {}", hash.get(..16).unwrap_or(&hash)))
}
