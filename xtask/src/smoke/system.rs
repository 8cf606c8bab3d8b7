//! What runs in a smoke boot, and whom one can talk to: the hypervisor and its guests, as the bundle's own
//! profile and manifest say.

use std::collections::BTreeMap;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{InputKind, Manifest, Role, Sha256};
use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::input::UNKNOWN_NAME;
use citrine_planner::input::reader::nearest;
use citrine_planner::plan::{LoadPlan, PartitionPlan, host_name};

use crate::emulator::{Channels, Source};

/// What `--console` and transcripts call the hypervisor's own console, which is U-Boot's before.
pub const HYPERVISOR: &str = "hv";

/// The consoles of a system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct System {
    /// Channel of the hypervisor's own console.
    pub channel: u8,
    /// The partitions, in the profile's order.
    pub guests: Vec<Guest>,
}

/// A partition, and what must be true of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    /// Its name in the profile.
    pub name: String,
    /// Its name for the hypervisor and for itself.
    pub label: String,
    /// Channel of its console.
    pub channel: u8,
    /// Number of its CPUs.
    pub cpus: usize,
    /// Command line of its kernel.
    pub bootargs: String,
    /// What the hypervisor loads into it.
    pub images: Vec<GuestImage>,
    /// Whether its root file system is the built one, which greets and has a shell on the console. Of a file
    /// of the user's own nothing is known.
    pub has_shell: bool,
}

/// An image that the hypervisor loads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestImage {
    /// `kernel` or `rootfs`, as the hypervisor calls it.
    pub role: Role,
    /// Where U-Boot has put it.
    pub load: TruePhys,
    /// Name of the part.
    pub part: String,
    /// What the manifest says of its bytes.
    pub sha256: Sha256,
}

impl System {
    /// The system of a bundle with this manifest, at the addresses of `plan`.
    pub fn of(manifest: &Manifest, plan: &LoadPlan) -> Self {
        // The rules bound channels to 31.
        let channel = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        let guests = plan.partitions.iter().map(|partition| Guest::of(manifest, plan, partition, channel));
        Self { channel: channel(plan.profile.hypervisor.console), guests: guests.collect() }
    }

    /// The hypervisor's console.
    pub fn hypervisor(&self) -> Source {
        Source::Channel(self.channel)
    }

    /// The channels by the names of their transcripts.
    pub fn channels(&self) -> Channels {
        let guests = self.guests.iter().map(|guest| {
            // Files of other consoles have these names.
            let taken = guest.name == HYPERVISOR || guest.name.starts_with("uart");
            (guest.channel, if taken { format!("{}-partition", guest.name) } else { guest.name.clone() })
        });
        let hypervisor = (self.channel, HYPERVISOR.to_owned());
        Channels { first: self.channel, names: BTreeMap::from_iter(guests.chain([hypervisor])) }
    }

    /// The console of this name: `hv`, or a partition's name or label.
    ///
    /// # Errors
    /// `C107` when there is none.
    pub fn console(&self, name: &str) -> Result<Source> {
        if name == HYPERVISOR {
            return Ok(self.hypervisor());
        }
        if let Some(guest) = self.guests.iter().find(|guest| guest.name == name || guest.label == name) {
            return Ok(guest.console());
        }
        let known: Vec<&str> =
            [HYPERVISOR].into_iter().chain(self.guests.iter().map(|guest| guest.name.as_str())).collect();
        let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`? "));
        let help = format!("{}consoles of this bundle: {}", near.unwrap_or_default(), known.join(", "));
        let message = format!("there is no console `{}`", name.escape_debug());
        Err(Diagnostic::error(UNKNOWN_NAME, message).help(help).into())
    }
}

impl Guest {
    fn of(manifest: &Manifest, plan: &LoadPlan, partition: &PartitionPlan, channel: impl Fn(u32) -> u8) -> Self {
        let used = [(Role::Rootfs, partition.rootfs.as_ref()), (Role::Kernel, Some(&partition.kernel))];
        let images: Vec<GuestImage> = used
            .into_iter()
            .filter_map(|(role, image)| {
                let part = plan.parts.get(image?.part)?;
                let signed = manifest.parts.iter().find(|signed| signed.name == part.file)?;
                Some(GuestImage { role, load: part.load, part: part.file.clone(), sha256: signed.sha256? })
            })
            .collect();
        let given = |image: &GuestImage| {
            manifest.inputs.iter().any(|input| input.kind == InputKind::File && input.sha256 == Some(image.sha256))
        };
        let has_shell = images.iter().any(|image| image.role == Role::Rootfs && !given(image));
        Self {
            name: partition.name.clone(),
            label: partition.label.clone(),
            channel: channel(partition.console),
            cpus: partition.cpus.len(),
            bootargs: partition.bootargs.clone(),
            images,
            has_shell,
        }
    }

    /// Its console.
    pub fn console(&self) -> Source {
        Source::Channel(self.channel)
    }

    /// What it calls itself.
    pub fn host_name(&self) -> String {
        host_name(&self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, channel: u8) -> Guest {
        Guest {
            name: name.to_owned(),
            label: format!("{name} linux"),
            channel,
            cpus: 1,
            bootargs: String::new(),
            images: Vec::new(),
            has_shell: true,
        }
    }

    #[test]
    fn consoles_are_found_by_name_and_label() {
        let system = System { channel: 3, guests: vec![guest("p1", 1), guest("p2", 2)] };
        assert_eq!(system.console("hv").unwrap(), Source::Channel(3));
        assert_eq!(system.console("p2").unwrap(), Source::Channel(2));
        assert_eq!(system.console("p1 linux").unwrap(), Source::Channel(1));
        let error = system.console("p3").unwrap_err();
        assert_eq!(error.code, UNKNOWN_NAME);
        assert!(error.help.unwrap().ends_with("consoles of this bundle: hv, p1, p2"));
        assert_eq!(system.guests[0].host_name(), "p1linux");
    }

    #[test]
    fn every_console_has_a_file_of_its_own() {
        let system = System { channel: 0, guests: vec![guest("hv", 1), guest("uart1", 2), guest("p", 3)] };
        let channels = system.channels();
        assert_eq!(channels.first, 0);
        assert_eq!(channels.names.into_values().collect::<Vec<_>>(), ["hv", "hv-partition", "uart1-partition", "p"]);
    }
}
