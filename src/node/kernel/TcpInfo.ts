/**
 * The kernel's measurements of a TCP connection: `struct tcp_info` of tcp(7).
 */
import type { Path } from "../../relay/Relay.js"
import type { Inspection } from "../../transport/Transport.js"
import { options, type Sockets } from "./ffi/Sockets.js"

/** Reads the measurements; `undefined` when the kernel has none, as for a closed descriptor. */
export const read = (sockets: Sockets, fd: number): Path | undefined =>
  sockets.get(fd, options.info, bytes) < 0
    ? undefined
    : {
        rttMillis: view.getUint32(rttOffset, littleEndian) / 1000,
        segments: view.getUint32(segmentsOffset, littleEndian),
        retransmitted: view.getUint32(retransmittedOffset, littleEndian)
      }

/** The state of the connection, and its round trip. */
export const inspect = (sockets: Sockets, fd: number): Inspection => {
  if (fd < 0 || sockets.get(fd, options.info, bytes) < 0) return { state: "over", roundTripMillis: undefined }
  const micros = view.getUint32(rttOffset, littleEndian)
  return { state: states[bytes[stateOffset] ?? 0] ?? "ending", roundTripMillis: micros > 0 ? micros / 1000 : undefined }
}

// internal

/** Room for the fields up to `tcpi_data_segs_out`, which Linux has since 4.6. */
const bytes = new Uint8Array(160)
const view = new DataView(bytes.buffer)
const [stateOffset, rttOffset, retransmittedOffset, segmentsOffset] = [0, 68, 100, 156]
/** `TCP_ESTABLISHED` and `TCP_CLOSE`; the others are between both. */
const states: Readonly<Record<number, Inspection["state"]>> = { 1: "open", 7: "over" }
/** The byte order of x64 and arm64. */
const littleEndian = true
