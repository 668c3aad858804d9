//! Lists in several messages: what the streaming lists of the CRI send. Every message holds at least one
//! item and, unless a single item is larger, stays far below what a client takes; every item is in exactly
//! one of them; an empty list is no message at all. What is listed is the business of the rooms that list.

use prost::Message;
use shim_model::limits;

/// Distributes items over messages, in order.
pub(crate) fn parts<T: Message, R>(items: Vec<T>, message: impl Fn(Vec<T>) -> R) -> Vec<R> {
    let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
    for item in items {
        let size = item.encoded_len();
        if !part.is_empty() && bytes.saturating_add(size) > limits::LIST_PART_BYTES {
            messages.push(message(std::mem::take(&mut part)));
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        part.push(item);
    }
    if !part.is_empty() {
        messages.push(message(part));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::parts;
    use prost::Message;
    use shim_model::limits;
    use shim_proto::runtime_v1::PodSandbox;

    fn pods(sizes: &[usize]) -> Vec<PodSandbox> {
        let pod = |(index, size): (usize, &usize)| PodSandbox {
            id: index.to_string(),
            runtime_handler: "x".repeat(*size),
            ..PodSandbox::default()
        };
        sizes.iter().enumerate().map(pod).collect()
    }

    /// How many items each message has; all items are there in order, and no message is too large.
    fn check(sizes: &[usize]) -> Vec<usize> {
        let items = pods(sizes);
        let messages = parts(items.clone(), |part| part);
        assert_eq!(messages.concat(), items);
        for part in messages.iter().filter(|part| part.len() > 1) {
            let bytes: usize = part.iter().map(Message::encoded_len).sum();
            assert!(bytes <= limits::LIST_PART_BYTES, "{bytes}");
        }
        messages.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_message_is_never_empty_and_never_too_large() {
        let half = limits::LIST_PART_BYTES / 2;
        assert_eq!(check(&[]), [0_usize; 0]);
        assert_eq!(check(&[1, 1, 1]), [3]);
        assert_eq!(check(&[half, half, 1]), [1, 2]);
        assert_eq!(check(&[1, 5 * half, 1]), [1, 1, 1]);
        assert!(check(&[half / 4; 40]).len() >= 5);
    }
}
