//! The security context of a request: users, capabilities, profiles. Deprecated text fields count only
//! where their successors are unset.

use shim_model::container::config::{Capabilities, RunAs};
use shim_model::kind::Refused;
use shim_model::sandbox::config::Profile;
use shim_proto::runtime_v1 as cri;

/// Who it runs as.
pub(crate) fn run_as(context: &cri::LinuxContainerSecurityContext) -> Result<RunAs, Refused> {
    let number = context.supplemental_groups_policy;
    let policy = cri::SupplementalGroupsPolicy::try_from(number).map_err(|_unknown| {
        let field = "config.linux.security_context.supplemental_groups_policy";
        Refused::new(field, number.to_string(), "Merge or Strict")
    })?;
    Ok(RunAs {
        user: context.run_as_user.map(|id| id.value),
        username: context.run_as_username.clone(),
        group: context.run_as_group.map(|id| id.value),
        supplemental_groups: context.supplemental_groups.clone(),
        strict_groups: policy == cri::SupplementalGroupsPolicy::Strict,
    })
}

/// Capability changes.
pub(crate) fn capabilities(found: Option<cri::Capability>) -> Capabilities {
    let found = found.unwrap_or_default();
    Capabilities {
        add: found.add_capabilities,
        drop: found.drop_capabilities,
        ambient: found.add_ambient_capabilities,
    }
}

/// The seccomp profile; unset everywhere = unconfined.
#[expect(deprecated, reason = "old clients set only the old field")]
pub(crate) fn seccomp(
    context: &cri::LinuxContainerSecurityContext,
) -> Result<Option<Profile>, Refused> {
    match &context.seccomp {
        Some(found) => profile("seccomp", found).map(Some),
        None => text("seccomp_profile_path", &context.seccomp_profile_path),
    }
}

/// The AppArmor profile.
#[expect(deprecated, reason = "old clients set only the old field")]
pub(crate) fn apparmor(
    context: &cri::LinuxContainerSecurityContext,
) -> Result<Option<Profile>, Refused> {
    match &context.apparmor {
        Some(found) => profile("apparmor", found).map(Some),
        None => text("apparmor_profile", &context.apparmor_profile),
    }
}

/// A profile of the security context's `field`.
pub(crate) fn profile(field: &str, found: &cri::SecurityProfile) -> Result<Profile, Refused> {
    match cri::security_profile::ProfileType::try_from(found.profile_type) {
        Ok(cri::security_profile::ProfileType::RuntimeDefault) => Ok(Profile::RuntimeDefault),
        Ok(cri::security_profile::ProfileType::Unconfined) => Ok(Profile::Unconfined),
        Ok(cri::security_profile::ProfileType::Localhost) => {
            let name =
                found.localhost_ref.strip_prefix("localhost/").unwrap_or(&found.localhost_ref);
            Ok(Profile::Localhost(name.to_owned()))
        }
        Err(_) => {
            let field = format!("config.linux.security_context.{field}.profile_type");
            Err(Refused::new(
                field,
                found.profile_type.to_string(),
                "RuntimeDefault, Unconfined or Localhost",
            ))
        }
    }
}

fn text(field: &str, found: &str) -> Result<Option<Profile>, Refused> {
    match found {
        "" => Ok(None),
        "runtime/default" | "docker/default" => Ok(Some(Profile::RuntimeDefault)),
        "unconfined" => Ok(Some(Profile::Unconfined)),
        other => {
            let name = other.strip_prefix("localhost/").ok_or_else(|| {
                let field = format!("config.linux.security_context.{field}");
                Refused::new(field, other, "runtime/default, unconfined or localhost/NAME")
            })?;
            Ok(Some(Profile::Localhost(name.to_owned())))
        }
    }
}
