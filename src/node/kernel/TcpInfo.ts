/**
 * How a TCP connection fares, as the kernel has measured it: `struct tcp_info` of tcp(7).
 */
import type { Path } from "../../relay/Relay.js"
import { options, type Sockets } from "./ffi/Sockets.js"

/** Asks the kernel; `undefined` where it does not say. */
export const read = (sockets: Sockets, fd: number): Path | undefined =>
  sockets.get(fd, options.info, bytes) < 0
    ? undefined
    : {
        rttMillis: view.getUint32(rttAt, littleEndian) / 1000,
        segments: view.getUint32(segmentsAt, littleEndian),
        retransmitted: view.getUint32(retransmittedAt, littleEndian)
      }

// internal

/** Of the fields up to `tcpi_data_segs_out`, which Linux has since 4.6. */
const bytes = new Uint8Array(160)
const view = new DataView(bytes.buffer)
const [rttAt, retransmittedAt, segmentsAt] = [68, 100, 156]
/** Of all that we run on. */
const littleEndian = true
