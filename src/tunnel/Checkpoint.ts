/**
 * The state and figures of a tunnel at one moment: for hosts, dashboards and the master.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * `serving`: visitors can be served: a session has a control connection, or the tunnel forwards by itself, and not every
 * target failed the last time. `waiting`: they cannot be served now. `stopping`: new visitors are refused, the others may
 * finish.
 */
export const Status = Schema.Literal("waiting", "serving", "stopping")
export type Status = typeof Status.Type

export class Checkpoint extends Schema.Class<Checkpoint>("nodepass/Checkpoint")({
  status: Status,
  /** Why the tunnel is not serving, or which server it cannot reach; otherwise empty. */
  reason: Schema.String,
  /** As in the URL: a server receives visitors (1) or sends them to its client (2), a client forwards (1) or uses servers (2). */
  mode: Schema.Literal(1, 2),
  /** Round trip of the control connection, in milliseconds; `None` without a session or before the first answer. */
  ping: Schema.Option(Schema.Number),
  /** Idle pool connections, as many as the pool keeps, and visitors that wait for one. */
  pool: Schema.Struct({ idle: Schema.Number, capacity: Schema.Number, waiting: Schema.Number }),
  /** Visitors served now over TCP and over UDP, and over both since the start. */
  tcps: Schema.Number,
  udps: Schema.Number,
  visitors: Schema.Number,
  /** Bytes received from the other end of the tunnel, and sent to it. For a client that forwards, that end is the target. */
  tcpRx: Schema.Number,
  tcpTx: Schema.Number,
  udpRx: Schema.Number,
  udpTx: Schema.Number,
  /** Refusals since the start, by kind; see `Refusals`. */
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
  /** One short line for people. */
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
