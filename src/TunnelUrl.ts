import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Duration from "effect/Duration"
import type { Address } from "./Address.js"
export interface ServerConfig {
  readonly _tag: "Server"
  readonly key: Option.Option<Redacted.Redacted>
  readonly tunnel: Address
  readonly target: Address
  readonly log: "none" | "debug" | "info" | "warn" | "error" | "event"
  readonly mode: "auto" | "receive" | "send"
  readonly max: number
  readonly read: Duration.Duration
  readonly slot: number
}
export interface ClientConfig {
  readonly _tag: "Client"
  readonly key: Option.Option<Redacted.Redacted>
  readonly tunnel: Address
  readonly target: Address
  readonly log: "none" | "debug" | "info" | "warn" | "error" | "event"
  readonly mode: "auto" | "forward" | "through"
  readonly min: number
  readonly read: Duration.Duration
  readonly slot: number
}
export type TunnelConfig = ServerConfig | ClientConfig
