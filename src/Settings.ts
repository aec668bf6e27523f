import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
export interface SettingsShape {
  readonly signalQueue: number
  readonly handshakeTimeout: Duration.Duration
  readonly tcpDialTimeout: Duration.Duration
  readonly poolGetTimeout: Duration.Duration
  readonly minPoolInterval: Duration.Duration
  readonly maxPoolInterval: Duration.Duration
  readonly reportInterval: Duration.Duration
  readonly serviceCooldown: Duration.Duration
  readonly shutdownTimeout: Duration.Duration
}
export class Settings extends Context.Tag("nodepass/Settings")<Settings, SettingsShape>() {}
const s = Duration.seconds
export const defaults: SettingsShape = {
  signalQueue: 65536,
  handshakeTimeout: s(10),
  tcpDialTimeout: s(30),
  poolGetTimeout: s(30),
  minPoolInterval: Duration.millis(100),
  maxPoolInterval: s(1),
  reportInterval: s(5),
  serviceCooldown: s(3),
  shutdownTimeout: s(5)
}
export const layer = (o?: Partial<SettingsShape>) => Layer.succeed(Settings, { ...defaults, ...o })
