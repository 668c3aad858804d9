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
    /// Of the program, and of the keyring that is made before.
    context: Option<[Attribute; 2]>,
}

impl Labels {
    /// None needed.
    pub(crate) const NONE: Self = Self { profile: None, context: None };

    /// Opens what these steps need.
    pub(crate) fn open<'s>(steps: impl Iterator<Item = &'s Step>) -> Result<Self, SysError> {
        let mut labels = Self::NONE;
        for step in steps {
            let Step::Label { module, .. } = step else { continue };
            match module {
                Module::AppArmor => {
                    labels.profile = Some(Attribute::open(&Proc::own()?, Kind::ProfileAtExec)?);
                }
                Module::Selinux => {
                    let proc = Proc::own()?;
                    let own = |kind| Attribute::open(&proc, kind);
                    labels.context = Some([own(Kind::ContextAtExec)?, own(Kind::ContextOfKeys)?]);
                }
            }
        }
        Ok(labels)
    }

    /// Tells one.
    pub(crate) fn tell(&self, module: Module, label: &CStr) -> Result<(), SysError> {
        let files = match module {
            Module::AppArmor => self.profile.as_slice(),
            Module::Selinux => self.context.as_ref().map_or(&[][..], |files| files),
        };
        if files.is_empty() {
            return Err(bad_plan("no file for a label"));
        }
        files.iter().try_for_each(|file| file.set(label))
    }
}
