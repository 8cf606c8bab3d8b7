//! A stage that builds a source of Debian's with packages of this machine and recipes of the project.

use std::path::Path;
use std::time::Duration;

use citrine_formats::manifest::Input;
use citrine_planner::diag::Result;

use crate::build::context::{Artifact, Context, deflate_input, recipe_input};
use crate::build::debian::{self, Fetched};
use crate::build::lock::Source;
use crate::cache::{Entry, StageId, io_error};
use crate::progress::Step;

/// What is constant about a stage.
#[derive(Debug)]
pub struct Stage {
    /// Its name in the cache.
    pub name: &'static str,
    /// Counts changes of the code that makes it: another number builds anew.
    pub version: u32,
    /// Its name for people.
    pub label: &'static str,
    /// How long it takes on an ordinary machine.
    pub expected: Duration,
    /// The source in the lock file.
    pub source: &'static str,
    /// Packages whose bytes or version reach what it makes.
    pub packages: &'static [&'static str],
}

impl Stage {
    /// What the stage makes, from the cache where it can be. `recipes` are files of the project (path, bytes);
    /// `make` builds the source it is given into a directory.
    ///
    /// The pinned source is not fetched to find out that the cache has what it becomes.
    ///
    /// # Errors
    /// What fetching, the cache and `make` return.
    pub fn run(
        &self,
        context: &Context<'_>,
        recipes: &[(String, Vec<u8>)],
        make: impl FnOnce(&Fetched, &Path, &Step<'_>) -> Result<()>,
    ) -> Result<Vec<Artifact>> {
        let pin = context.lock.source(self.source)?;
        let mut others = vec![deflate_input()];
        others.extend(recipes.iter().map(|(path, bytes)| recipe_input(path, bytes)));
        for package in self.packages {
            others.push(context.package(package)?);
        }
        let inputs = self.inputs(context, pin, &others);
        if let Some(entry) = context.cache.find(&self.id(context, &inputs)?, context.progress)? {
            return Ok(Artifact::of_entry(&entry, &inputs));
        }
        let fetched = debian::fetch(context, pin)?;
        let inputs = self.inputs(context, &fetched.source, &others);
        let id = self.id(context, &inputs)?;
        let entry: Entry = context
            .cache
            .stage(&id, self.label, self.expected, context.progress, |dir, step| make(&fetched, dir, step))?;
        Ok(Artifact::of_entry(&entry, &inputs))
    }

    fn inputs(&self, context: &Context<'_>, source: &Source, others: &[Input]) -> Vec<Input> {
        let mut inputs = context.source_inputs(source);
        inputs.extend_from_slice(others);
        inputs.sort();
        inputs
    }

    fn id(&self, context: &Context<'_>, inputs: &[Input]) -> Result<StageId> {
        let list = serde_json::to_vec(inputs).map_err(|error| io_error(context.root, &error.into()))?;
        let epoch = context.lock.source_date_epoch.to_be_bytes();
        Ok(StageId::new(self.name, self.version, &[("inputs", &list), ("source_date_epoch", &epoch)]))
    }
}
