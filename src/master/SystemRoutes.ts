/**
 * The endpoints about the master itself: `/info` and `/tcping`.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Address from "../core/Address.js"
import * as TlsMode from "../core/TlsMode.js"
import type { MasterConfig } from "../url/MasterUrl.js"
import { BadRequest, notStored } from "./ApiErrors.js"
import type { MasterInfo } from "./ApiPayloads.js"
import { HostFigures } from "./HostFigures.js"
import * as IfMatch from "./IfMatch.js"
import { Master } from "./Master.js"
import type { withPrefix } from "./MasterApi.js"
import * as MasterIdentity from "./MasterIdentity.js"
import * as Tcping from "./Tcping.js"

export interface Options {
  readonly config: MasterConfig
  readonly version: string
}

export const layer = (api: ReturnType<typeof withPrefix>, { config, version }: Options) =>
  HttpApiBuilder.group(api, "master", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const host = yield* HostFigures
      const tcping = yield* Tcping.make
      const start = yield* Clock.currentTimeMillis
      const info = Effect.gen(function* () {
        const { alias, mid } = yield* master.identity
        const { tls } = config
        return {
          mid,
          alias,
          os: host.os,
          arch: host.arch,
          ...(yield* host.read),
          uptime: Math.floor(((yield* Clock.currentTimeMillis) - start) / 1000),
          ver: version,
          name: host.name,
          log: config.log,
          tls: TlsMode.toDigit(tls.mode),
          crt: tls.mode === "verified" ? tls.crt : "",
          key: tls.mode === "verified" ? tls.key : ""
        } satisfies MasterInfo
      })
      return handlers
        .handle("info", () => Effect.tap(info, setTag))
        .handle(
          "rename",
          ({ payload: { alias }, request }) =>
            Effect.flatMap(IfMatch.conditionOf(request), (expects) => master.rename(alias, { expects })).pipe(
              Effect.catchTags({ StoreError: notStored, VersionMismatch: IfMatch.notMet }),
              Effect.zipRight(info),
              Effect.tap(setTag)
            ),
          { uninterruptible: true }
        )
        .handle("tcping", ({ urlParams: { target } }) =>
          Option.match(
            Option.filter(Schema.decodeOption(Address.FromText)(target), ({ host, port }) => host !== "" && port > 0),
            {
              onNone: () => new BadRequest({ error: `target=${target.slice(0, 200)}: expected host:port` }),
              onSome: (address) => Effect.map(tcping(address), (result) => ({ target, ...result }))
            }
          )
        )
    })
  )

// internal

const setTag = (info: MasterInfo) => IfMatch.setTag(MasterIdentity.tagOf(info))
