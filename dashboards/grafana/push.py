"""`python -m dashboards.grafana.push URL`: put the folder, the data source and the dashboards into a Grafana server.

Repeated calls update existing objects. GRAFANA_TOKEN holds the token of a service account that may edit. It is not an
option, since the process list would show it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import requests
import tyro
from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
from grafana_api.grafana_face import GrafanaFace

from dashboards.grafana.dashboards import FOLDER, SOURCE, SOURCE_NAME

FOLDER_UID, FOLDER_TITLE = "brc", "BRC at scale"
TIMEOUT_S = 10.0


class PushError(Exception):
    """The push failed; the message says in one sentence what is wrong and what to do."""


def push(url: str, token: str, prometheus: str) -> list[str]:
    """Put everything into the server. Return a line for each object. Raises PushError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PushError(f"{url!r} is not an address of Grafana, such as http://localhost:3000")
    if not token:
        raise PushError("GRAFANA_TOKEN is not set: make a service account that may edit, and give its token")
    prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
    grafana = GrafanaFace(
        auth=token,
        host=parts.hostname,
        port=parts.port,
        url_path_prefix=prefix,
        protocol=parts.scheme,
        timeout=TIMEOUT_S,
    )
    try:
        return [put_folder(grafana), put_source(grafana, prometheus), *put_dashboards(grafana)]
    except GrafanaUnauthorizedError as error:
        raise PushError(f"{url} does not take GRAFANA_TOKEN: make a new one") from error
    except GrafanaException as error:
        raise PushError(f"{url} refuses: {error.message}") from error
    except (requests.RequestException, ValueError) as error:  # ValueError: the answer is not JSON
        raise PushError(
            f"{url} does not answer as Grafana does: {type(error).__name__}; is it the right one?"
        ) from error


def there(grafana: GrafanaFace, path: str) -> dict[str, Any] | None:
    """Return the object at a path of Grafana's API; None if there is none."""
    try:
        found: dict[str, Any] = grafana.api.GET(path)
    except GrafanaClientError as error:
        if error.status_code != 404:
            raise
        return None
    return found


def put_folder(grafana: GrafanaFace) -> str:
    if there(grafana, f"/folders/{FOLDER_UID}") is not None:
        return f"folder {FOLDER_TITLE}: is there"
    grafana.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID)
    return f"folder {FOLDER_TITLE}: made"


def put_source(grafana: GrafanaFace, prometheus: str) -> str:
    wanted = {"name": SOURCE_NAME, "uid": SOURCE, "type": "prometheus", "access": "proxy", "url": prometheus}
    known = there(grafana, f"/datasources/uid/{SOURCE}")
    if known is None:
        grafana.datasource.create_datasource(wanted)
        return f"data source {prometheus}: made"
    if all(known.get(field) == value for field, value in wanted.items()):
        return f"data source {prometheus}: is there"
    grafana.datasource.update_datasource(known["id"], known | wanted)  # permissions and other settings stay
    return f"data source {prometheus}: changed, was {known.get('url')}"


def put_dashboards(grafana: GrafanaFace) -> list[str]:
    told = []
    for file in sorted(FOLDER.glob("*.json")):
        document = json.loads(file.read_text())
        grafana.dashboard.update_dashboard({"dashboard": document, "folderUid": FOLDER_UID, "overwrite": True})
        told.append(f"dashboard {document['title']}: up to date")
    return told


def main(url: str, /, prometheus: str = "http://localhost:9090") -> int:
    """Put folder, data source and dashboards into a Grafana server.

    Args:
        url: address of Grafana, such as http://localhost:3000.
        prometheus: address at which Grafana reaches Prometheus.
    """
    try:
        print("\n".join(push(url, os.environ.get("GRAFANA_TOKEN", ""), prometheus)))
    except PushError as error:
        print(f"dashboards: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
