"""Cluster descriptions, node.sh (which keeps Ray running on a host), and commands sent to a cluster."""
