//! The bounds that every layer shares. Each has its reason; their relations are asserted at the end.

/// A request, with all its keys and values: 8 MiB. A larger value belongs in the blob store; a log entry must fit in one
/// WAL segment and one peer frame with room to spare.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;

/// A key: 32,000 bytes. The store keeps key lengths in 16 bits, and a history row may need two bytes for one.
pub const KEY_BYTES_MAX: usize = 32_000;

/// A keyspace's name.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 64;

/// Shards that a keyspace may be made with. More come by splitting.
pub const KEYSPACE_SHARDS_MAX: usize = 256;

/// Shards that one transaction may touch: each holds locks until the last has answered.
pub const TRANSACTION_SHARDS_MAX: usize = 64;

/// Keys that one interactive transaction may reserve: each is in others' way while a client thinks.
pub const RESERVED_KEYS_MAX: usize = 128;

/// Keys that may be reserved in one shard. Its leader looks at all of them at each tick.
pub const RESERVED_KEYS_OF_SHARD_MAX: usize = 4_096;

/// How many replicas a shard has, if nobody says otherwise: any one may be lost while another is being replaced.
pub const REPLICAS_DEFAULT: usize = 3;

/// How many it may have: each write waits for a majority of them.
pub const REPLICAS_MAX: usize = 7;

/// Records of one append: each is a row, and all are written in one step.
pub const APPEND_RECORDS_MAX: usize = 10_000;

/// Records of one fetch at most.
pub const FETCH_RECORDS_MAX: u64 = 10_000;

/// Bytes of the records of one fetch, unless the first alone is larger: a few fit in the memory of a node for each client, and one in a message between nodes.
pub const FETCH_BYTES_MAX: usize = 4 << 20;

/// How long a fetch waits for a record at most, in milliseconds: whoever wants to wait longer asks again.
pub const FETCH_WAIT_MS_MAX: u64 = 20_000;

/// Transactions inside transactions. Deep enough for any client seen, shallow enough for the smallest thread stack.
pub const TXN_DEPTH_MAX: usize = 32;

/// A lease's longest time to live, in seconds, as etcd's clients know it (9,000,000,000).
pub const LEASE_TTL_S_MAX: u64 = 9_000_000_000;

/// Bytes of commands that may enter the log as one entry, unless a single command is larger.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Commands that may enter the log as one entry.
pub const BATCH_COMMANDS_MAX: usize = 4096;

const _: () = assert!(RESERVED_KEYS_MAX <= RESERVED_KEYS_OF_SHARD_MAX);
const _: () = assert!(REPLICAS_DEFAULT <= REPLICAS_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= REQUEST_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX <= REQUEST_BYTES_MAX);

/// Shards of a keyspace that were merged and of which it is remembered who knows what they decided: who asks for what one has decided that was merged before
/// these is told that nobody knows any more. 16 bytes each, in a row that is read at every change of the shard map.
pub const HEIRS_MAX: usize = 256;
