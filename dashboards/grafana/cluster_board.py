"""Dashboard of the machines, from Ray's metrics of each of its nodes."""

from __future__ import annotations

from dashboards.grafana.panels import NEVER, Board, Panel

NODE = '{ip=~"$node"}'
ADDRESS = '{NodeAddress=~"$node"}'

CLUSTER = Board(
    "brc-cluster",
    "BRC cluster",
    "The machines that runs are on, as Ray sees them.",
    ("node",),
    {
        "Machines": (
            Panel(
                "Nodes", "That answer.", "short", (("count(count by (ip) (ray_node_cpu_utilization))", "nodes"),), NEVER
            ),
            Panel("CPU", "Share of all cores.", "percent", ((f"ray_node_cpu_utilization{NODE}", "{{ip}}"),), 98.0),
            Panel(
                "Memory",
                "Share of the node's that is in use: replay's shared memory is part of it.",
                "percentunit",
                ((f"ray_node_mem_used{NODE} / ray_node_mem_total{NODE}", "{{ip}}"),),
                0.95,
            ),
            Panel(
                "Disk",
                "Share of the fullest disk that is in use.",
                "percent",
                ((f"max by (ip) (ray_node_disk_utilization_percentage{NODE})", "{{ip}}"),),
                95.0,
            ),
        ),
        "Traffic": (
            Panel(
                "Received", "From other machines.", "Bps", ((f"ray_node_network_receive_speed{NODE}", "{{ip}}"),), NEVER
            ),
            Panel("Sent", "To other machines.", "Bps", ((f"ray_node_network_send_speed{NODE}", "{{ip}}"),), NEVER),
            Panel(
                "Disk reads",
                "As the node's kernel counts.",
                "Bps",
                ((f"ray_node_disk_io_read_speed{NODE}", "{{ip}}"),),
                NEVER,
            ),
            Panel("Disk writes", "Likewise.", "Bps", ((f"ray_node_disk_io_write_speed{NODE}", "{{ip}}"),), NEVER),
        ),
        "Ray": (
            Panel(
                "CPUs set aside",
                "Of those that the node declares, the share that actors have. What has no room stays pending.",
                "percentunit",
                (
                    (
                        'sum by (NodeAddress) (ray_resources{NodeAddress=~"$node", Name="CPU", State="USED"})'
                        ' / sum by (NodeAddress) (ray_resources{NodeAddress=~"$node", Name="CPU"})',
                        "{{NodeAddress}}",
                    ),
                ),
                NEVER,
            ),
            Panel(
                "Ray's actors",
                "All of them, by state.",
                "short",
                (("sum by (State) (ray_actors)", "{{State}}"),),
                NEVER,
            ),
            Panel(
                "Object store",
                "Share in use by what is in flight: batches, pushes, policies.",
                "percentunit",
                (
                    (
                        f"ray_object_store_used_memory{ADDRESS} / (ray_object_store_used_memory{ADDRESS}"
                        f" + ray_object_store_available_memory{ADDRESS})",
                        "{{NodeAddress}}",
                    ),
                ),
                0.9,
            ),
            Panel(
                "Spilled",
                "Objects on disk, for which the object store had no room: anything but none is slow.",
                "bytes",
                (
                    (
                        'sum by (NodeAddress) (ray_object_store_memory{NodeAddress=~"$node", Location="SPILLED"})',
                        "{{NodeAddress}}",
                    ),
                ),
                1.0,
            ),
        ),
        "Processes": (
            Panel(
                "Memory of processes",
                "The ten kinds that have most, shared memory counted in each.",
                "bytes",
                ((f"topk(10, sum by (ip, Component) (ray_component_rss_bytes{NODE}))", "{{ip}} {{Component}}"),),
                NEVER,
            ),
            Panel(
                "CPU of processes",
                "The ten kinds that use most; 100 is a core.",
                "percent",
                ((f"topk(10, sum by (ip, Component) (ray_component_cpu_percentage{NODE}))", "{{ip}} {{Component}}"),),
                NEVER,
            ),
        ),
        "GPUs": (
            Panel(
                "GPU",
                "Share of time with a kernel under way.",
                "percent",
                ((f"ray_node_gpus_utilization{NODE}", "{{ip}} {{GpuIndex}}"),),
                NEVER,
            ),
            Panel("GPU memory", "In use.", "mbytes", ((f"ray_node_gram_used{NODE}", "{{ip}} {{GpuIndex}}"),), NEVER),
        ),
    },
)
