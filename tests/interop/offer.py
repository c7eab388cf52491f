"""An offer laid out as WhatsApp's live ones are: same lines, same order, same line ends.

The IPv6 candidate has the higher priority and cannot be reached: a documentation address.
"""

import secrets
import time
import uuid


def whatsapp_offer(address, port, username, password, fingerprint, ssrc):
    """The offer as text with CRLF line ends."""
    stream = uuid.uuid4()
    lines = f"""v=0
o=- {time.time_ns() // 1_000_000} 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE audio
a=msid-semantic: WMS {stream}
a=ice-lite
m=audio {port} UDP/TLS/RTP/SAVPF 111 126
c=IN IP4 {address}
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:2275956755 1 udp 2122260223 {address} {port} typ host generation 0 network-cost 50
a=candidate:2684782176 1 udp 2122262783 2001:0db8:f312:131:face:b00c:0:699c {port} typ host generation 0 network-cost 50
a=ice-ufrag:{username}
a=ice-pwd:{password}
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:audio
a=sendrecv
a=msid:{stream} WhatsAppTrack1
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1
a=rtpmap:126 telephone-event/8000
a=maxptime:20
a=ptime:20
a=ssrc:{ssrc} cname:WhatsAppAudioStream1
"""
    return lines.replace("\n", "\r\n")


def credentials():
    """A user name of 16 and a password of 24 characters that ends in `==`, as WhatsApp's do."""
    return secrets.token_hex(8), secrets.token_urlsafe(16)[:22].replace("-", "+").replace("_", "/") + "=="
