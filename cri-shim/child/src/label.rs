//! What a clone tells the kernel's security modules: files of its own, opened before anything of the container is
//! in reach, written in the walk.

use crate::mounts::bad_plan;
use shim_model::plan::{Module, Step};
use shim_sys::error::SysError;
use shim_sys::label::{Attribute, Kind};
use shim_sys::procfs::Proc;
use std::ffi::CStr;

/// The files, as far as a plan needs them.
#[derive(Debug)]
pub(crate) struct Labels {
    profile: Option<Attribute>,
}

impl Labels {
    /// None needed.
    pub(crate) const NONE: Self = Self { profile: None };

    /// Opens what these steps need.
    pub(crate) fn open<'s>(steps: impl Iterator<Item = &'s Step>) -> Result<Self, SysError> {
        let mut labels = Self::NONE;
        for step in steps {
            let Step::Label { module, .. } = step else { continue };
            match module {
                Module::AppArmor => {
                    labels.profile = Some(Attribute::open(&Proc::own()?, Kind::ProfileAtExec)?);
                }
            }
        }
        Ok(labels)
    }

    /// Tells one.
    pub(crate) fn tell(&self, module: Module, label: &CStr) -> Result<(), SysError> {
        let file = match module {
            Module::AppArmor => self.profile.as_ref(),
        };
        file.ok_or_else(|| bad_plan("no file for a label"))?.set(label)
    }
}
