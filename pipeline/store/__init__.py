"""Content-addressed store: immutable artifacts by key, committed atomically."""

from pipeline.store.artifact import StoredArtifact
from pipeline.store.config import StoreConfig
from pipeline.store.draft import StoredDraft
from pipeline.store.entries import Entry
from pipeline.store.gc import Report, collect
from pipeline.store.integrity import Finding
from pipeline.store.leases import Lease
from pipeline.store.publish import Publication, link_tree
from pipeline.store.store import Store

__all__ = [
    "Entry",
    "Finding",
    "Lease",
    "Publication",
    "Report",
    "Store",
    "StoreConfig",
    "StoredArtifact",
    "StoredDraft",
    "collect",
    "link_tree",
]
