"""squid with ssl-bump and no policy: the peer in C."""

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.load import Target
from benchmarks.peers.peer import Missing, Running
from benchmarks.place import NAME, Authority, PeerFailed, Place, free_port, listens

_INSTALL = "Debian, Ubuntu: apt install squid-openssl (the package `squid` is built without interception)"
_CERTIFICATES = (Path("/usr/lib/squid/security_file_certgen"), Path("/usr/libexec/squid/security_file_certgen"))

_CONFIGURATION = """\
http_port 127.0.0.1:{port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB tls-cert={issuer}
sslcrtd_program {certgen} -s {folder}/certificates -M 4MB
sslcrtd_children 1
ssl_bump bump all
tls_outgoing_options cafile={origin_ca}
hosts_file {folder}/hosts
http_access allow all
cache deny all
server_pconn_for_nonretriable allow all
cache_mem 1 MB
access_log none
cache_store_log none
cache_log {folder}/cache.log
pid_filename none
coredump_dir none
pinger_enable off
netdb_filename none
via off
forwarded_for delete
max_filedescriptors 4096
shutdown_lifetime 0 seconds
visible_hostname bench.test
"""


class Squid:
    """Intercepts and forwards; attaches nothing, records nothing."""

    name = "squid"
    title = "squid with ssl-bump, no policy"

    def version(self) -> str:
        program = shutil.which("squid") or shutil.which("squid", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise Missing(f"squid is not installed. {_INSTALL}")
        said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout
        if "--with-openssl" not in said or not any(path.exists() for path in _CERTIFICATES):
            raise Missing(f"this squid is built without interception. {_INSTALL}")
        return said.splitlines()[0].replace("Squid Cache: Version", "squid")

    def start(self, place: Place) -> Running:
        port = free_port()
        folder = place.folder / "squid"
        folder.mkdir(mode=0o755)
        (folder / "hosts").write_text(f"127.0.0.1 {NAME}\n")
        authority = Authority.create("Benchmark squid")
        issuer = folder / "issuer.pem"
        issuer.write_bytes(authority.bundle())
        trusted = folder / "trusted.pem"
        trusted.write_bytes(authority.pem())
        certgen = next(path for path in _CERTIFICATES if path.exists())
        subprocess.run([certgen, "-c", "-s", folder / "certificates", "-M", "4MB"], capture_output=True, check=True)
        configuration = folder / "squid.conf"
        configuration.write_text(
            _CONFIGURATION.format(port=port, issuer=issuer, certgen=certgen, folder=folder, origin_ca=place.origin_ca)
        )
        self._hand_over(folder)
        program = shutil.which("squid") or "/usr/sbin/squid"
        child = place.start("squid", [program, "-N", "-f", str(configuration)])
        place.wait_for(child, lambda: listens(port), "squid")
        return Running(child, Target(("127.0.0.1", port), f"{NAME}:{place.origin_port}", str(trusted)))

    @staticmethod
    def _hand_over(folder: Path) -> None:
        """Started by root, squid becomes its package's user and must still write here."""
        if os.geteuid() != 0:
            return
        try:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, "proxy")
        except LookupError as error:
            raise PeerFailed("squid started by root needs its package's user `proxy`") from error
