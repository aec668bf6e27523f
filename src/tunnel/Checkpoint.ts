/**
 * How a tunnel is doing at one moment: what hosts read, dashboards parse and the master stores.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * `waiting`: no session yet, or its control connection is away, and visitors are held. `serving`: a session stands, or the tunnel
 * forwards by itself. `stopping`: no new visitors, those served are let finish.
 */
export const Status = Schema.Literal("waiting", "serving", "stopping")
export type Status = typeof Status.Type

export class Checkpoint extends Schema.Class<Checkpoint>("nodepass/Checkpoint")({
  status: Status,
  /** The mode in force, as the URL's `mode` counts: server 1 receives, 2 sends; client 1 forwards, 2 through the server. */
  mode: Schema.Literal(1, 2),
  /** Round trip of the control connection, in milliseconds; `None` without a session or before the first answer. */
  ping: Schema.Option(Schema.Number),
  /** Pool connections ready, the number the pool tends to, and visitors who wait for one. */
  pool: Schema.Struct({ idle: Schema.Number, capacity: Schema.Number, waiting: Schema.Number }),
  /** Visitors served now, by TCP and by UDP, and by both since the start. */
  tcps: Schema.Number,
  udps: Schema.Number,
  visitors: Schema.Number,
  /** Bytes that came from the other end of the tunnel (single-end: from the target), and that went to it. */
  tcpRx: Schema.Number,
  tcpTx: Schema.Number,
  udpRx: Schema.Number,
  udpTx: Schema.Number,
  /** What could not be served since the start, by kind; see `Refusals`. */
  refused: Schema.Record({ key: Schema.String, value: Schema.Number })
}) {
  /** The event line of `log=event`; dashboards rely on the order of its fields. */
  get line(): string {
    const fields = {
      MODE: this.mode,
      PING: `${Math.round(Option.getOrElse(this.ping, () => 0))}ms`,
      POOL: this.pool.idle,
      TCPS: this.tcps,
      UDPS: this.udps,
      TCPRX: this.tcpRx,
      TCPTX: this.tcpTx,
      UDPRX: this.udpRx,
      UDPTX: this.udpTx
    }
    return ["CHECK_POINT", ...Object.entries(fields).map(([name, value]) => `${name}=${value}`)].join("|")
  }
  /** How it is doing, for people: one short line. */
  get summary(): string {
    const refused = Object.values(this.refused).reduce((sum, count) => sum + count, 0)
    return [
      this.status,
      `visitors ${this.visitors} (${this.tcps} tcp, ${this.udps} udp now)`,
      `up ${bytes(this.tcpTx + this.udpTx)}`,
      `down ${bytes(this.tcpRx + this.udpRx)}`,
      ...(this.pool.capacity > 0 ? [`pool ${this.pool.idle} ready`] : []),
      ...Option.match(this.ping, { onNone: () => [], onSome: (millis) => [`round trip ${millis.toFixed(1)} ms`] }),
      ...(refused > 0 ? [`refused ${refused}`] : [])
    ].join("   ")
  }
}

// internal

const bytes = (count: number): string => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"]
  const power = count < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10))
  return `${power === 0 ? count : (count / 1024 ** power).toFixed(1)} ${units[power] ?? "B"}`
}
