//! Mounts and images of a request as plain data, and back as messages. Only the words change here: which
//! paths are allowed is decided in the model.

use crate::rpc::sandbox;
use shim_model::container::config as model;
use shim_model::kind::Refused;
use shim_model::sandbox::config::IdMapping;
use shim_proto::runtime_v1 as cri;

/// An image as the request names it.
pub(crate) fn image(image: cri::ImageSpec) -> model::ImageSpec {
    model::ImageSpec {
        image: image.image,
        user_specified_image: image.user_specified_image,
        runtime_handler: image.runtime_handler,
        annotations: image.annotations,
        image_ref: image.image_ref,
    }
}

/// A mount of the request.
pub(crate) fn mount((index, mount): (usize, cri::Mount)) -> Result<model::Mount, Refused> {
    let propagation = match cri::MountPropagation::try_from(mount.propagation) {
        Ok(cri::MountPropagation::PropagationPrivate) => model::Propagation::Private,
        Ok(cri::MountPropagation::PropagationHostToContainer) => {
            model::Propagation::HostToContainer
        }
        Ok(cri::MountPropagation::PropagationBidirectional) => model::Propagation::Bidirectional,
        Err(_) => {
            let field = format!("config.mounts[{index}].propagation");
            return Err(Refused::new(
                field,
                mount.propagation.to_string(),
                "a propagation of the protocol",
            ));
        }
    };
    Ok(model::Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        uid_mappings: sandbox::ids(&mount.uid_mappings),
        gid_mappings: sandbox::ids(&mount.gid_mappings),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.filter(|image| !image.image.is_empty()).map(image_of_mount),
        image_sub_path: mount.image_sub_path,
        mount_options: mount.mount_options,
    })
}

fn image_of_mount(spec: cri::ImageSpec) -> model::ImageSpec {
    image(spec)
}

/// A mount as status shows it: what the request had, unresolved. `image_ref` of an image volume is the
/// id that a pull of it answers.
pub(crate) fn shown(mount: &model::Mount, image_ref: impl Fn(&str) -> String) -> cri::Mount {
    let maps = |maps: &[IdMapping]| -> Vec<cri::IdMapping> {
        maps.iter()
            .map(|map| cri::IdMapping {
                host_id: map.host_id,
                container_id: map.container_id,
                length: map.length,
            })
            .collect()
    };
    let propagation = match mount.propagation {
        model::Propagation::Private => cri::MountPropagation::PropagationPrivate,
        model::Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        model::Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: maps(&mount.uid_mappings),
        gid_mappings: maps(&mount.gid_mappings),
        recursive_read_only: mount.recursive_read_only,
        image: mount
            .image
            .as_ref()
            .map(|image| cri::ImageSpec { image_ref: image_ref(&image.image), ..spec(image) }),
        image_sub_path: mount.image_sub_path.clone(),
        mount_options: mount.mount_options.clone(),
    }
}

/// An image back as a message.
pub(crate) fn spec(image: &model::ImageSpec) -> cri::ImageSpec {
    cri::ImageSpec {
        image: image.image.clone(),
        annotations: image.annotations.clone(),
        user_specified_image: image.user_specified_image.clone(),
        runtime_handler: image.runtime_handler.clone(),
        image_ref: image.image_ref.clone(),
    }
}
