//! The settings as README.zh-CN.md explains them: name, what it is, and what is found where there is no fixed default.

/// One line for each setting.
pub(crate) const SETTINGS_IN_CHINESE: &[(&str, &str, &str)] = &[
    ("HOST", "监听的地址或主机名：localhost 即 127.0.0.1 和 ::1，0.0.0.0 即所有 IPv4 地址，:: 即所有地址", ""),
    ("PORT", "监听的端口；0 表示任意空闲端口", ""),
    ("ADMIN_PORT", "/metrics、/stats、/hubs 和 /hubstats 的端口；与 PORT 不同时，它们只在该端口提供", "PORT"),
    ("SHARDS", "为对等端服务的线程数，每核一个", "本进程可用的核数"),
    ("AUTH_TOKEN", "对等端必须出示的令牌，用 `Authorization: Bearer TOKEN` 或 `?token=TOKEN`", ""),
    ("CORS_ORIGIN", "允许读取 HTTP 端点的网页来源；* 表示任意来源", ""),
    (
        "CORS_PRIVATE_NETWORK",
        "允许公网上属于 CORS_ORIGIN 的网页读取位于私有网络中的本枢纽的 HTTP 端点（Private Network Access）",
        "",
    ),
    ("PLAYGROUND", "浏览器访问 / 时显示一个页面，用两个标签页即可试用本 hub；程序在该路径始终得到 JSON", ""),
    ("MAX_CONNECTIONS", "同时打开的 WebSocket 数量上限", ""),
    ("MAX_MESSAGE_BYTES", "对等端可发送的单条消息的最大字节数", ""),
    ("MAX_NETWORKS_PER_PEER", "一个对等端可同时加入的网络数量", ""),
    ("MAX_PEERS_PER_NETWORK", "一个网络可容纳的对等端数量", ""),
    ("MESSAGE_RATE", "一个对等端长期平均每秒可发送的消息数", ""),
    ("MESSAGE_RATE_BYTES", "一个对等端长期平均每秒可发送的消息字节数", ""),
    (
        "DISCOVERY",
        "对等端在其网络中会得知哪些成员：all 为全部；closest:K 为 id 与它最近的 K 个，外加四个随机成员，使加入的开销不随网络增大；\
         同一 mesh 只能有一种",
        "",
    ),
    (
        "PEER_TIMEOUT_MS",
        "至多静默多少毫秒后视为离线；不应答 ping 的对等端 60 秒后即离线，因此只有小于 60000 的值才有作用",
        "",
    ),
    ("SEND_QUEUE_FRAMES", "可为一个对等端排队的消息数；读取过慢的对等端会被断开", ""),
    ("SEND_QUEUE_BYTES", "可为一个对等端排队的字节数", ""),
    ("SEND_BUDGET_BYTES", "可为所有对等端排队的总字节数", ""),
    ("ANNOUNCE_BUDGET_BYTES", "为所有对等端保存的公告的总字节数；网格中的每个 hub 都保存所有 hub 的公告", ""),
    (
        "IS_HUB",
        "加入由多个 hub 组成的 mesh：连接其他 hub，也接受它们的连接",
        "设置了 BOOTSTRAP_HUBS、MESH_DNS 或 REDIS_URL 时为 true，否则为 false",
    ),
    ("HUB_ID", "本 hub 的 id，40 位十六进制数字", "随机"),
    ("HUB_MESH_NAMESPACE", "本 hub 所属的 mesh", ""),
    ("BOOTSTRAP_HUBS", "要连接的 hub：以逗号分隔的 ws:// 或 wss:// URL", ""),
    ("MESH_TOKEN", "hub 之间互相出示的令牌，所有 hub 相同；没有它就不建立也不接受链路", ""),
    ("MESH_TOKEN_ALSO", "除 MESH_TOKEN 外还接受其他 hub 出示的令牌，自己不出示：用于逐个 hub 更换令牌期间", ""),
    ("MESH_INSECURE", "没有 MESH_TOKEN 也建立和接受链路：能连到本 hub 的人都可以冒充 hub", ""),
    (
        "MESH_DNS",
        "其全部地址都是要连接的 hub 的域名，会反复解析，例如 headless Service；不写端口即为 MESH_PORT；wss://host:port 表示用 TLS",
        "",
    ),
    ("MESH_ADVERTISE", "其他 hub 可以连接本 hub 的 ws:// 或 wss:// URL，会告知整个 mesh", ""),
    ("PUBLIC_URL", "客户端连接本 hub 的 ws:// 或 wss:// URL；其他 hub 停止时会把它告诉自己的对等端", ""),
    ("MESH_CA", "PEM 格式的证书文件，wss:// 链路和 rediss:// 除通常的根证书外还信任它们", ""),
    (
        "MESH_LEGACY",
        "使用旧协议、不带令牌的 hub：BOOTSTRAP_HUBS 中的 URL，以及 10.0.0.0/8 这样的地址段，来自这些地址、不带子协议的 WebSocket \
         都视为 hub；以逗号分隔",
        "",
    ),
    ("MESH_PORT", "接受链路的端口；与 PORT 不同时，该端口只接受链路，PORT 不接受链路", "PORT"),
    (
        "REDIS_URL",
        "连通各 hub 的 Redis：redis://[user:password@]host[:port]，rediss:// 表示用 TLS，redis+cluster:// 或 rediss+cluster:// 表示集群",
        "",
    ),
    ("DRAIN_SECS", "停止时用多少秒分批送走对等端，避免它们同时重连", ""),
    (
        "READY_WHEN_FULL",
        "枢纽已满、不能再接纳对等端时，/readyz 仍返回就绪；默认此时返回 503，使负载均衡器把新来者送往其他枢纽",
        "",
    ),
    ("LOG_FORMAT", "json、human，或 auto：在终端上为 human，其余为 json", ""),
    (
        "LOG_LEVEL",
        "off、error、warn、info、debug 或 trace，或 shard=debug,info 这样的过滤器；未设置时使用 RUST_LOG",
        "",
    ),
    ("CLEANUP_INTERVAL_MS", "无效果：离开的对等端会立即清理。仅因 Go 版 hub 有此变量而接受", ""),
    ("FLY_APP_NAME", "Fly.io 上的应用名，显示在 /metrics?format=json 中", ""),
    ("FLY_REGION", "Fly.io 上的区域，显示在 /metrics?format=json 中", ""),
];
