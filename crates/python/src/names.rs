//! The reference's names of weights (stable-pretraining 0.1.8) for ours.

/// The reference's name of one of ours.
pub(crate) fn reference_name(name: &str) -> String {
    let (owner, rest) = name.split_once('.').unwrap_or(("", name));
    match owner {
        "student" | "encoder" => format!("{owner}.vit.{rest}"),
        "teacher" => format!("teacher.backbone.vit.{rest}"),
        _ => name.to_owned(),
    }
}

/// The second name under which the reference's state dict holds a tensor: a masked encoder has its
/// patch embedding once as timm's and once as its own.
pub(crate) fn second_name(reference: &str) -> Option<String> {
    let place = reference.find("vit.patch_embed.")?;
    Some(format!("{}{}", &reference[..place], &reference[place + "vit.".len()..]))
}
