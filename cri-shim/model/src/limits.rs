//! Every bound and deadline of the product, with its reason. Code that an outsider drives takes its
//! bound from here and nowhere else (`reliability.md` §2).

use std::time::Duration;

/// One gRPC request: the client's own receive limit is 16 MiB (`cri-contract.md` 0.3).
pub const GRPC_REQUEST_BYTES: usize = 16 << 20;
/// One message of a streaming list: with its framing far below the client's 16 MiB, and large enough that
/// a node's pods are a handful of messages.
pub const LIST_PART_BYTES: usize = 1 << 20;
/// ExecSync keeps this much of each stream; both together stay below the client's 16 MiB message.
pub const EXEC_OUTPUT_BYTES: usize = (16 << 20) - (64 << 10);
/// A raw log line longer than this is split into partial records (CRI log format).
pub const LOG_FRAGMENT_BYTES: usize = 16 << 10;
/// After a container's first process ended, how long its pipes may stay open before EXITED is told.
pub const LOG_DRAIN: Duration = Duration::from_secs(1);
/// After an exec's process ended, how long a background child may keep the pipes.
pub const EXEC_DRAIN: Duration = Duration::from_secs(1);
/// Streamed execs of one container that may leave processes behind: each keeps a group of its own.
pub const EXECS_LEFT_BEHIND: usize = 64;
/// Open files of one monitor: enough for every exec and client of a pod with many containers.
pub const MONITOR_FILES: u64 = 16_384;
/// Clients attached to one container at once; each is written to for every read of its output.
pub const ATTACHES_PER_CONTAINER: usize = 128;
/// How far an attached client may be behind; beyond it, it loses its place or holds the container up.
pub const ATTACH_BUFFER_BYTES: usize = 256 << 10;
/// How long a container with standard input is held up by an attached client that reads nothing at all.
pub const ATTACH_PATIENCE: Duration = Duration::from_secs(5);
/// What a pipe holds (pipe(7)): what is read at most of an output whose command ended before that time.
pub const PIPE_BYTES: usize = 64 << 10;
/// Execs at work in one container at once: an exec bomb must not exhaust the monitor's descriptors.
pub const EXECS_PER_CONTAINER: usize = 64;
/// Pods whose network is being set up at once: RTNL is one lock for the whole host.
pub const NETWORK_OPERATIONS: usize = 6;
/// Network namespaces made ahead: what starts at once on a small node; 160 KB of kernel memory each.
pub const NETNS_READY: usize = 4;
/// After a namespace was taken, when the next one is made: later than the pod that took it needs us.
pub const NETNS_REFILL: Duration = Duration::from_millis(10);
/// After a pod's namespace was given up, how long the kernel may take to remove its links by itself.
pub const LINK_GONE: Duration = Duration::from_secs(5);
/// Connecting to one address of a pod's loopback: it answers or refuses at once, unless a firewall drops.
pub const POD_DIAL: Duration = Duration::from_secs(5);
/// One CNI ADD, DEL, CHECK or GC of one plugin.
pub const CNI_PLUGIN: Duration = Duration::from_mins(1);
/// One CNI STATUS or VERSION of one plugin: the kubelet asks for the node's condition every 5 seconds.
pub const CNI_STATUS: Duration = Duration::from_secs(10);
/// How often plugins are asked for their STATUS.
pub const CNI_STATUS_EVERY: Duration = Duration::from_secs(15);
/// How often plugins are asked to collect what no pod has.
pub const CNI_GC_EVERY: Duration = Duration::from_hours(1);
/// A plugin that ended may have children that keep its output open; it is read for this long.
pub const CNI_DRAIN: Duration = Duration::from_secs(1);
/// Standard output and error kept of one CNI plugin call.
pub const CNI_OUTPUT_BYTES: usize = 1 << 20;
/// Making one pod, every step together; the kubelet's deadline is 4 minutes.
pub const SANDBOX_RUN: Duration = Duration::from_mins(3);
/// Taking one pod away, every step together; the kubelet's deadline is 2 minutes.
pub const TEARDOWN: Duration = Duration::from_secs(100);
/// One call of systemd's, tries over a restart of it included: a reload of thousands of units takes seconds.
pub const SYSTEMD: Duration = Duration::from_secs(15);
/// Between tries while nobody answers in systemd's name.
pub const SYSTEMD_RETRY: Duration = Duration::from_millis(100);
/// Names that a verb of the command line works on at once: each may wait for its grace to end.
pub const NAMES_AT_ONCE: usize = 32;
/// How often a container without a name is given another made-up one: of a million, most are free.
pub const MADE_UP_NAMES: u32 = 4;
/// How long a command line that follows a container waits for a daemon that went away: a restart under
/// systemd takes seconds.
pub const DAEMON_AWAY: Duration = Duration::from_secs(30);
/// A pod that was to go at its end, and ended while no daemon ran, stays so long after the daemon's start, and
/// so does one that ends just after it: the command line that waits for it looks for the daemon several
/// times a second.
pub const HOLD_AGAIN: Duration = Duration::from_secs(2);
/// From SIGKILL of a whole cgroup to the recorded exit; past it the process is stuck in the kernel.
pub const KILL_WAIT: Duration = Duration::from_secs(20);
/// A monitor answers everything but a start within this time; past it, it counts as stuck.
pub const MONITOR_REPLY: Duration = Duration::from_secs(20);
/// Starting a container: mounts, credentials, exec.
pub const CONTAINER_START: Duration = Duration::from_mins(1);
/// One command of a handler's program: a start takes two of them within [`CONTAINER_START`]. runc needs a
/// tenth of a second, on a busy node some.
pub const HANDLER_COMMAND: Duration = Duration::from_secs(25);
/// What such a program may say of itself when the daemon starts, which waits for it.
pub const HANDLER_PROBE: Duration = Duration::from_secs(5);
/// Loading our AppArmor profile: a tenth of a second where the node is idle, seconds where it is emulated.
pub const APPARMOR_LOAD: Duration = Duration::from_secs(30);
/// A profile that could not be loaded is tried again by the next container that needs it, not more often.
pub const APPARMOR_AGAIN: Duration = Duration::from_mins(1);
/// Bytes of the kernel's list of AppArmor profiles: a desktop system has 150, of 50 bytes each.
pub const APPARMOR_LIST_BYTES: u64 = 4 << 20;
/// Bytes of a profile's name; it goes to the kernel in one write of a page.
pub const APPARMOR_NAME_BYTES: usize = 2_048;
/// Bytes of what such a program says that are read.
pub const HANDLER_OUTPUT_BYTES: usize = 1 << 20;
/// One message between our own processes; larger payloads travel in a sealed memfd.
pub const WIRE_MESSAGE_BYTES: usize = 128 << 10;
/// One payload in a sealed memfd: arguments, mounts and a filter, each at its own bound, fit twice.
pub const WIRE_PAYLOAD_BYTES: usize = 16 << 20;
/// Descriptors with one message: the kernel's `SCM_MAX_FD` is 253.
pub const WIRE_DESCRIPTORS: usize = 250;
/// Mounts of one container.
pub const MOUNTS: usize = 4_096;
/// Annotations of one object, all keys and values together (`reliability.md` C12).
pub const ANNOTATIONS_BYTES: usize = 512 << 10;
/// One label's key and value together.
pub const LABEL_BYTES: usize = 4 << 10;
/// All arguments and environment of one program: the kernel's share of a stack is 6 MiB, one string 128 KiB.
pub const ARGUMENTS_BYTES: usize = 2 << 20;
/// One argument or environment string (`MAX_ARG_STRLEN`, execve(2)).
pub const ARGUMENT_BYTES: usize = 128 << 10;
/// passwd and group files of an image.
pub const PASSWD_BYTES: usize = 10 << 20;
/// Lines read of passwd and group files.
pub const PASSWD_LINES: usize = 100_000;
/// A seccomp profile as JSON.
pub const SECCOMP_PROFILE_BYTES: usize = 1 << 20;
/// Instructions of one classic BPF filter (`BPF_MAXINSNS`).
pub const SECCOMP_INSTRUCTIONS: usize = 4_096;
/// One file of a vendor's devices (CDI): a node with many GPUs has some hundred KiB.
pub const CDI_FILE_BYTES: usize = 4 << 20;
/// Files of devices in one folder that are read.
pub const CDI_FILES: usize = 1_000;
/// CDI devices of one container.
pub const CDI_DEVICES: usize = 1_024;
/// How often the folders of devices are looked at when nobody asks, so that a bad file is told.
pub const CDI_LOOK: Duration = Duration::from_secs(10);
/// Plugins of NRI connected at once, those that register included; a node has a handful.
pub const NRI_PLUGINS: usize = 64;
/// One ttrpc message of a plugin, the protocol's own bound.
pub const NRI_MESSAGE_BYTES: usize = 4 << 20;
/// Pods and containers of one message of a synchronization fill at most this much: below the bound above,
/// with room for the frame around them.
pub const NRI_SYNC_BYTES: usize = 3 << 20;
/// Requests of one plugin that wait for their answer; a plugin asks for updates one at a time.
pub const NRI_REQUESTS: usize = 8;
/// Updates and evictions in one answer or request of a plugin: the containers of a large node.
pub const NRI_UPDATES: usize = 4_096;
/// From a plugin's connection to its registration, and one synchronization (NRI's default).
pub const NRI_REGISTRATION: Duration = Duration::from_secs(5);
/// One request to a plugin (NRI's default).
pub const NRI_REQUEST: Duration = Duration::from_secs(2);
/// What began before a plugin was there must be over before the plugin is told what is there, and everything
/// new waits meanwhile: if it takes longer, the plugin is sent away and may come again.
pub const NRI_SETTLE: Duration = Duration::from_secs(10);
/// One hook that names no timeout of its own.
pub const HOOK: Duration = Duration::from_secs(20);
/// One hook, whatever timeout it names: a container starts within a minute.
pub const HOOK_MOST: Duration = Duration::from_secs(50);
/// What is kept of a failed hook's output for the message.
pub const HOOK_OUTPUT_BYTES: usize = 300;
/// A record file of ours; more is damage.
pub const RECORD_BYTES: usize = 32 << 20;
/// How often the ledger is flushed to the disk.
pub const LEDGER_FLUSH: Duration = Duration::from_secs(1);
/// Connections of one monitor at once: the daemon's, one that it lost, and a person looking.
pub const MONITOR_CONNECTIONS: usize = 16;
/// Replies and events that wait for a daemon which does not read; past it the connection is closed and
/// the daemon asks for the state anew.
pub const MONITOR_QUEUE: usize = 1_024;
/// Read at once from a container's output: what a pipe holds.
pub const LOG_READ_BYTES: usize = 64 << 10;
/// Log records written at once; one fragment with its header must fit.
pub const LOG_BATCH_BYTES: usize = 32 << 10;
/// How long a monitor keeps its log buffers after the last output.
pub const LOG_BUFFER_IDLE: Duration = Duration::from_secs(1);
/// Orphans reaped between two looks at everything else: a fork bomb must not starve the log.
pub const REAP_BATCH: usize = 256;
/// Attempts to remove the cgroup of an exec whose killed processes are still leaving it.
pub const EXEC_GROUP_TRIES: u32 = 12;
/// Rounds of signalling every process of a cgroup without `cgroup.kill`; each meets who forked meanwhile.
pub const KILL_ROUNDS: usize = 32;
/// A journal entry or log that a full disk refused is tried again after this time.
pub const WRITE_RETRY: Duration = Duration::from_secs(1);
/// Layers of one overlay mount (the kernel's `OVL_MAX_STACK`).
pub const OVERLAY_LAYERS: usize = 500;
/// One text value of `fsconfig(2)`: the kernel takes 256 bytes with the zero byte.
pub const MOUNT_OPTION_BYTES: usize = 255;
/// One piece of a layer's archive as it is kept for export: a gathered run of headers, or the map of a
/// sparse file of 65,536 parts.
pub const ARCHIVE_PIECE_BYTES: usize = 4 << 20;
/// Files of an archive that is imported: manifests, configs and layers of every image in it.
pub const IMPORT_ENTRIES: usize = 65_536;
/// Size of an imported archive without its compression.
pub const IMPORT_BYTES: u64 = 128 << 30;
/// Pulls for pods that are remembered until their container is made: more than a node starts at once.
pub const PULLS_REMEMBERED: usize = 256;
/// Connections to the page of metrics at once: a few scrapers.
pub const METRICS_CONNECTIONS: usize = 16;
/// How long one of them may last; scrapers connect again.
pub const METRICS_CONNECTION: Duration = Duration::from_mins(5);
/// Spans that are sent at the end are waited for so long.
pub const TRACES_END: Duration = Duration::from_secs(2);
/// Clients that listen to events at once: a kubelet, an operator's agent, people looking.
pub const EVENT_LISTENERS: usize = 64;
/// Events that wait for one client: four for each container of a full node that starts and ends at once.
pub const EVENT_BUFFER: usize = 2_048;
/// Descriptors of one container's processes that are looked at to count sockets: each costs a system call.
pub const COUNTED_DESCRIPTORS: usize = 1 << 16;
/// Folders within folders whose descriptors are held at once while a tree is counted.
pub const USAGE_DEPTH: usize = 128;
/// Writable layers are counted again no sooner than this, however often they are asked for.
pub const USAGE_SOONEST: Duration = Duration::from_secs(1);
/// How often writable layers are counted unasked: kubelets look at them every 10 seconds.
pub const USAGE_EVERY: Duration = Duration::from_secs(10);
/// Counting may take this share of the time (one part in so many): a node full of files is counted less
/// often.
pub const USAGE_SHARE: u32 = 20;
/// One HTTP/2 header block of a client; the server's own bound on decoded headers is lower.
pub const HEADER_BLOCK_BYTES: usize = 64 << 10;
/// Read at once from a client's connection.
pub const CONNECTION_READ_BYTES: usize = 8 << 10;
/// A failed accept is tried again after this time: descriptors may be free again.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// What a session of the command line tells at once: half of a pipe, and a message far below gRPC's 4 MiB.
pub const SESSION_CHUNK_BYTES: usize = 32 << 10;
/// Such messages that wait for a client that does not read; then its process waits.
pub const SESSION_QUEUE: usize = 4;
/// Requests at work on one connection: a kubelet with 250 pods has far fewer.
pub const GRPC_CONCURRENT_REQUESTS: u32 = 1_024;
/// After SIGTERM, how long requests may go on before their connections end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// After the connections ended, how long tasks may take before the process leaves anyway.
pub const SHUTDOWN_END: Duration = Duration::from_secs(2);
/// How long the daemon keeps a thread for blocking work that has nothing to do.
pub const THREAD_IDLE: Duration = Duration::from_secs(2);
/// Stack of one daemon thread; nothing of ours recurses.
pub const THREAD_STACK_BYTES: usize = 1 << 20;
/// A connection to a registry comes about within this time, unless `hosts.toml` says otherwise.
pub const REGISTRY_CONNECT: Duration = Duration::from_secs(20);
/// A registry that says nothing for so long is given up: a hung one must not hold a pull for ever.
pub const REGISTRY_STALL: Duration = Duration::from_mins(1);
/// How often the pace of a download is looked at.
pub const REGISTRY_PACE: Duration = Duration::from_mins(2);
/// A download that brings less than this between two looks is broken off and tried again: a byte now and
/// then is as bad as none (`reliability.md` R1). 64 KiB in two minutes is slower than any real link.
pub const REGISTRY_PACE_BYTES: u64 = 64 << 10;
/// Bytes of a token service's answer.
pub const TOKEN_BYTES: usize = 1 << 20;
/// A streaming URL can be used for this long after it was given (`cri-contract.md` 4.2).
pub const STREAM_TOKEN: Duration = Duration::from_mins(1);
/// Streaming URLs that wait for their client; past it the next one is refused (`cri-contract.md` 4.2).
pub const STREAM_TOKENS: usize = 1_000;
/// Execs, attaches and port-forwards at work on the node, each a connection.
pub const STREAM_SESSIONS: usize = 1_024;
/// The same of one container or one pod.
pub const STREAM_SESSIONS_EACH: usize = 64;
/// Connections that have not shown their token yet: a pod on the host's network can make them.
pub const STREAM_STRANGERS: usize = 256;
/// From an accepted connection to its whole request head, a TLS handshake included.
pub const STREAM_REQUEST: Duration = Duration::from_secs(10);
/// Request line and headers: kubelets pass their client's headers on, with its cookies.
pub const STREAM_REQUEST_BYTES: usize = 64 << 10;
/// Header lines of a streaming request.
pub const STREAM_REQUEST_HEADERS: usize = 128;
/// How long a client may take to make its streams (`cri-contract.md` 4.2).
pub const STREAM_CREATION: Duration = Duration::from_secs(30);
/// No frame in either direction, or no progress of a write, for this long ends a stream; configurable.
pub const STREAM_IDLE: Duration = Duration::from_hours(4);
/// After our last word, how long the client may take to close: closing first could take the word back.
pub const STREAM_LINGER: Duration = Duration::from_secs(5);
/// How often a quiet client is written to. A killed client whose kernel still holds input for us tells
/// nothing by itself; it answers this with a reset. WebSocket clients give up after 61 quiet seconds.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(20);
/// Most bytes of one read from a client or a program: half of what a pipe holds.
pub const STREAM_CHUNK_BYTES: usize = 32 << 10;
/// A read begins with this much room, so that a thousand idle terminals cost little.
pub const STREAM_CHUNK_FIRST: usize = 2 << 10;
/// Chunks of all outputs of one connection that wait for its socket.
pub const STREAM_OUTPUT_CHUNKS: usize = 4;
/// Replies, pongs and resets of one connection that wait for its socket; past it nothing is read.
pub const STREAM_CONTROL_FRAMES: usize = 64;
/// Chunks of one stream that wait for a program; past it nothing is read from the connection.
pub const STREAM_INPUT_CHUNKS: usize = 16;
/// Bytes of all streams of one connection that wait for programs.
pub const STREAM_INPUT_BYTES: usize = 1 << 20;
/// What a program that ended can have left in its pipe: the largest one (pipe(7), pipe-max-size).
pub const STREAM_LEFT_BYTES: usize = 1 << 20;
/// One terminal size as JSON: a client needs 30 bytes.
pub const TERMINAL_SIZE_BYTES: usize = 1 << 10;
/// Payload of one SPDY control frame; clients of this protocol send some 60 bytes (CVE-2026-35469).
pub const SPDY_CONTROL_BYTES: usize = 16 << 10;
/// One SPDY header block after inflation: three headers are used, with short values.
pub const SPDY_HEADER_BLOCK_BYTES: usize = 16 << 10;
/// Headers of one block.
pub const SPDY_HEADERS: usize = 64;
/// Streams of one SPDY connection at once: a port-forward of 1,024 TCP connections.
pub const SPDY_STREAMS: usize = 2_048;
/// One WebSocket message: libraries send what a person pasted, or a whole file, as one.
pub const WEBSOCKET_MESSAGE_BYTES: usize = 16 << 20;
/// Ports of one port-forward request: a WebSocket channel is a byte, and a port needs two channels.
pub const FORWARD_PORTS: usize = 127;
/// Connecting to a port in a pod: both of its loopback addresses, and the way into its namespace.
pub const FORWARD_DIAL: Duration = Duration::from_secs(15);
/// After a pod closed its end, how long the client may take: clients do not half-close by themselves.
pub const FORWARD_CLOSING: Duration = Duration::from_secs(1);
/// After a client sent its last byte, how long a pod may be quiet before both ends close. A request by
/// `nc` ends like this before it is answered.
pub const FORWARD_ANSWER: Duration = Duration::from_mins(1);
/// Bytes that one layer may expand to, copies of files of other layers among them: a layer is small on the
/// wire and must not fill the disk.
pub const LAYER_EXPANDED_BYTES: u64 = 128 << 30;
/// Files of other layers that one layer may hard-link to; each costs a look into every layer below.
pub const BORROWED_FILES: usize = 65_536;
/// Symbolic links on the way to a hard link's target (the kernel's `MAXSYMLINKS`).
pub const SYMLINKS: usize = 40;
/// How often data that no image needs is looked for without an occasion; a failed pull is one.
pub const IMAGE_TIDY_EVERY: Duration = Duration::from_hours(1);
/// Bytes of the ledger about what is gone, before it is written anew: some hundred lives of pods.
pub const LEDGER_DEAD_BYTES: u64 = 1 << 20;
/// Heaps of the daemon: one for each thread that answers requests. A quarter of its memory after two thousand
/// pods was what further threads, which come and go, had left free in heaps of their own.
pub const HEAPS: u8 = 2;
/// Bytes of a manifest or index, as containerd has it.
pub const MANIFEST_BYTES: usize = 4 << 20;
/// Indexes in indexes: one for platforms in one for names is all that there is.
pub const INDEX_DEPTH: usize = 3;
/// Bytes of one compressed layer.
pub const LAYER_BYTES: u64 = 32 << 30;
/// Chunks between the download of a layer and its unpacking; a chunk is what the connection gives.
pub const LAYER_QUEUE: usize = 32;
/// How often the download of one layer may break.
pub const LAYER_BREAKS: u32 = 8;
/// Pulls and imports at work at once; more wait. Each has buffers, and layers of its own at work.
pub const PULLS: usize = 10;
/// An idle pull worker leaves after so long: a burst of pulls is served by one.
pub const WORKER_IDLE: Duration = Duration::from_secs(20);
/// Tries of one request to a registry, the first among them.
pub const REGISTRY_TRIES: u32 = 5;
/// Likewise, of an endpoint after which another can be asked: a dead mirror must not hold up a pull.
pub const REGISTRY_TRIES_OF_A_MIRROR: u32 = 2;
/// Longest wait that a registry may ask for; a longer one is the caller's decision.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(30);
/// Redirects that are followed for one request.
pub const REGISTRY_HOPS: usize = 10;
/// Largest window of a zstd stream, as a power of two: 128 MiB, the command line tool's own bound.
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes of one archive entry's extended headers.
pub const TAR_HEADER_BYTES: u64 = 1 << 20;
/// Entries of one archive.
pub const TAR_ENTRIES: u64 = 2_000_000;
/// Bytes of a name or link in an archive (`PATH_MAX`).
pub const TAR_NAME_BYTES: usize = 4_096;
/// Components of a name in an archive.
pub const PATH_COMPONENTS: usize = 256;
/// Extended attributes of one entry.
pub const XATTRS: usize = 64;
/// Bytes of all of them together (the kernel's `XATTR_SIZE_MAX` for one).
pub const XATTR_BYTES: usize = 64 << 10;
/// Pieces of a sparse file: more are an attack, not a file.
pub const SPARSE_PIECES: usize = 65_536;
/// Links that are followed to one file of an imported archive.
pub const IMPORT_LINKS: usize = 8;
