//! Changes of a running lab: new objects become a new world, the difference goes through index and agent, pods come and go. Who asked for
//! it may not enter.

use std::{collections::BTreeMap, fs, time::Instant};

use sluice_crds::manifest::{Object, ObjectRef};
use sluice_policy::{Delta, ItemRef, Prepared, Warning};
use sluice_world::{PodRef, Policy, World, WorldItem};

use super::{Supervisor, holders, identities_path, record_pods};
use crate::{
    LabError,
    control::{Named, Response},
    difference::Difference,
    objects, plan,
    store::{self, Change, Manifest, Parsed, Store},
};

impl Supervisor {
    /// Adds or replaces the objects of manifests. The answer comes when they are in force; tidying up comes after.
    ///
    /// # Errors
    /// An object is invalid, or the objects make no world: nothing has changed then.
    pub fn apply(&mut self, manifests: &[Manifest]) -> Result<Response, LabError> {
        let began = Instant::now();
        let Parsed { objects, warnings } = store::parse(manifests)?;
        let changes = self.store.preview(&objects);
        self.warnings = warnings;
        self.change(&changes)?;
        let text = joined(manifests);
        self.store.apply(&text, objects)?;
        Ok(self.changed(&changes, began))
    }

    /// Deletes the objects of manifests.
    ///
    /// # Errors
    /// As for [`Supervisor::apply`].
    pub fn delete_manifests(&mut self, manifests: &[Manifest]) -> Result<Response, LabError> {
        let parsed = store::parse(manifests)?;
        let names: Vec<ObjectRef> = parsed.objects.iter().map(objects::name).collect();
        self.delete(&names)
    }

    /// Deletes objects by name.
    ///
    /// # Errors
    /// There is no object of a name; nothing has changed then.
    pub fn delete_names(&mut self, names: &[Named]) -> Result<Response, LabError> {
        let found: Result<Vec<ObjectRef>, LabError> =
            names.iter().map(|name| self.find(name)).collect();
        self.delete(&found?)
    }

    /// Reads the sources again and makes the lab what they say.
    ///
    /// # Errors
    /// They are invalid: nothing has changed then.
    pub fn follow_sources(&mut self) -> Result<Response, LabError> {
        let began = Instant::now();
        let manifests = store::read_paths(&self.record.sources)?;
        let Parsed { objects, warnings } = store::parse(&manifests)?;
        let (changes, gone) = against(&self.store, &objects);
        self.warnings = warnings;
        self.change(&changes)?;
        commit(&mut self.store, &manifests, objects, &gone)?;
        Ok(self.changed(&changes, began))
    }

    /// Tidies up after a change, when nobody waits.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settle(&mut self) -> Result<(), LabError> {
        Ok(self.agent.settle()?)
    }

    /// The first world.
    pub(super) fn start(
        &mut self,
        world: World,
        left: &BTreeMap<PodRef, u32>,
    ) -> Result<(), LabError> {
        let difference = Difference::between(&self.world, &world);
        let wanted = plan::pods(&self.name, &world, &mut self.numbers);
        let made = self
            .pods
            .make(&wanted, &mut self.network, &mut self.agent)?;
        self.agent.end_unknown_endpoints()?;
        self.enforce(difference)?;
        self.world = world;
        self.agent.take_over()?;
        self.finish(&made, left)?;
        self.agent.settle()?;
        Ok(())
    }

    fn delete(&mut self, names: &[ObjectRef]) -> Result<Response, LabError> {
        let began = Instant::now();
        let changes = self.store.preview_delete(names);
        self.warnings.clear();
        self.change(&changes)?;
        self.store.delete(names)?;
        Ok(self.changed(&changes, began))
    }

    fn changed(&mut self, changes: &[Change], began: Instant) -> Response {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Response::Changed {
            objects: changes.iter().map(what_happened).collect(),
            micros,
            warnings: self.take_warnings(),
        }
    }

    /// Puts changes of objects in force.
    fn change(&mut self, changes: &[Change]) -> Result<(), LabError> {
        if changes.is_empty() {
            return Ok(());
        }
        if changes.iter().all(|change| self.is_only_policy(change)) {
            return self.change_policies(changes);
        }
        let mut all: BTreeMap<ObjectRef, &Object> = self
            .store
            .objects()
            .map(|object| (objects::name(object), object))
            .collect();
        for change in changes {
            match &change.new {
                Some(object) => all.insert(change.name.clone(), object),
                None => all.remove(&change.name),
            };
        }
        let held = self
            .pods
            .plans()
            .map(|plan| (plan.pod.clone(), plan.addresses.clone()))
            .collect();
        let world = objects::world(all.into_values(), held)?;
        let difference = Difference::between(&self.world, &world);
        let wanted = plan::pods(&self.name, &world, &mut self.numbers);
        self.pods
            .remove_others(&wanted, &mut self.network, &mut self.agent)?;
        let made = self
            .pods
            .make(&wanted, &mut self.network, &mut self.agent)?;
        self.world = world;
        self.enforce(difference)?;
        self.finish(&made, &BTreeMap::new())
    }

    /// Whether a change is of a policy alone, in a namespace that is known: then no world need be built.
    fn is_only_policy(&self, change: &Change) -> bool {
        let policy = change
            .new
            .as_ref()
            .or(change.old.as_ref())
            .and_then(objects::policy);
        policy.is_some_and(|policy| {
            let namespace = policy.origin().namespace.clone();
            change.new.is_none()
                || namespace.is_none_or(|name| self.world.namespaces.contains_key(&name))
        })
    }

    fn change_policies(&mut self, changes: &[Change]) -> Result<(), LabError> {
        let mut difference = Difference::default();
        for change in changes {
            match (
                change.new.as_ref().and_then(objects::policy),
                change.old.as_ref().and_then(objects::policy),
            ) {
                (Some(policy), _) => {
                    let item = WorldItem::Policy(policy.into());
                    self.world.insert(item.clone());
                    difference.apply.push(item);
                }
                (None, Some(policy)) => {
                    self.world.policies.remove(policy.origin());
                    difference
                        .delete
                        .push(ItemRef::Policy(policy.origin().clone()));
                }
                (None, None) => {}
            }
        }
        self.enforce(difference)
    }

    /// Through the compiler into the kernel.
    fn enforce(&mut self, difference: Difference) -> Result<(), LabError> {
        for name in difference.delete {
            self.index.delete(name);
        }
        for item in difference.apply {
            let WorldItem::Policy(policy) = item else {
                self.index.apply(item);
                continue;
            };
            if let Policy::Rules(policy) = &*policy {
                self.agent.name_log_texts(policy);
            }
            // Digested, so that its next version costs what its difference is.
            self.index.apply_prepared(Prepared::new(policy));
        }
        let delta: Delta = self.index.commit();
        self.note_equal_priorities(&delta);
        self.agent.apply(&delta)?;
        self.index.tidy();
        if !delta.identities.is_empty() || !delta.dropped_identities.is_empty() {
            self.keep_identities()?;
        }
        if delta.errors.is_empty() {
            Ok(())
        } else {
            Err(LabError::Manifests(delta.errors.join("\n")))
        }
    }

    /// What only all policies together show; of a single one the reader of manifests has said it, with its line.
    fn note_equal_priorities(&mut self, delta: &Delta) {
        for (policy, warnings) in &delta.warnings {
            if warnings.contains(&Warning::EqualPriority) {
                let warning = format!("warning: {policy}: {}", Warning::EqualPriority);
                self.warnings.push(warning);
            }
        }
    }

    /// What follows once the tables are in force: traffic, responders, names, the record.
    fn finish(&mut self, made: &[PodRef], left: &BTreeMap<PodRef, u32>) -> Result<(), LabError> {
        let elsewhere = plan::elsewhere(&self.world, made);
        self.warnings.extend(elsewhere);
        self.agent.name_addresses(holders(&self.world));
        self.pods
            .connect(made, &mut self.network, &mut self.agent)?;
        self.pods.serve(
            &plan::node_listens(&self.world),
            &self.name.node_namespace(),
            left,
        )?;
        self.record.pods = record_pods(&self.pods, &self.numbers);
        self.record.write(&self.name)
    }

    /// Numbers of identities outlive this process: the kernel's tables do too.
    fn keep_identities(&self) -> Result<(), LabError> {
        let path = identities_path(&self.name.directory());
        let text = serde_json::to_string(self.index.store())
            .map_err(|e| LabError::Refused(e.to_string()))?;
        let aside = path.with_extension("new");
        fs::write(&aside, text)
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(LabError::io(format!("writing {}", path.display())))
    }

    /// The object that a person means: kinds in any case, the namespace `default` where none is given.
    fn find(&self, named: &Named) -> Result<ObjectRef, LabError> {
        let fits = |name: &&ObjectRef| {
            let namespace = named.namespace.as_deref().unwrap_or("default");
            name.kind.eq_ignore_ascii_case(&named.kind)
                && name.name == named.name
                && name.namespace.as_deref().is_none_or(|own| own == namespace)
        };
        let found = self.store.names().find(fits).cloned();
        found.ok_or_else(|| {
            let namespace = named
                .namespace
                .as_ref()
                .map(|name| format!("{name}/"))
                .unwrap_or_default();
            LabError::Refused(format!(
                "there is no {} {namespace}{} in the lab",
                named.kind, named.name
            ))
        })
    }
}

/// Makes the store hold exactly these objects.
pub(super) fn replace(
    store: &mut Store,
    manifests: &[Manifest],
    wanted: Vec<Object>,
) -> Result<(), LabError> {
    let (_, gone) = against(store, &wanted);
    commit(store, manifests, wanted, &gone)
}

/// What differs between the store and all that is wanted, and the names of what goes.
fn against(store: &Store, wanted: &[Object]) -> (Vec<Change>, Vec<ObjectRef>) {
    let names: Vec<ObjectRef> = wanted.iter().map(objects::name).collect();
    let gone: Vec<ObjectRef> = store
        .names()
        .filter(|name| !names.contains(name))
        .cloned()
        .collect();
    let mut changes = store.preview(wanted);
    changes.extend(store.preview_delete(&gone));
    (changes, gone)
}

fn commit(
    store: &mut Store,
    manifests: &[Manifest],
    wanted: Vec<Object>,
    gone: &[ObjectRef],
) -> Result<(), LabError> {
    store.apply(&joined(manifests), wanted)?;
    if gone.is_empty() {
        Ok(())
    } else {
        store.delete(gone)
    }
}

/// Several manifests as one, of several documents. JSON is YAML.
fn joined(manifests: &[Manifest]) -> String {
    manifests
        .iter()
        .map(|manifest| manifest.text.as_str())
        .collect::<Vec<_>>()
        .join("\n---\n")
}

fn what_happened(change: &Change) -> String {
    let what = match (&change.old, &change.new) {
        (None, _) => "created",
        (Some(_), Some(_)) => "changed",
        (Some(_), None) => "deleted",
    };
    format!("{} {what}", change.name)
}
