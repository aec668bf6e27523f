/**
 * Keeps the session of a side in a store as it changes, so that another process can continue it: after a stop, and after
 * this process was killed.
 *
 * Numbers are reserved in blocks: what is stored says where another process continues, and this process uses nothing from there
 * on. So no number is used twice, and no visitor waits for a disk. What is stored of the rest may be some moments old, which
 * does no harm. Source: docs/protocol.md §Restart.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as AcceptingPool from "../pool/AcceptingPool.js"
import { Crypto } from "../transport/Crypto.js"
import { Settings } from "../transport/Settings.js"
import type * as TunnelKey from "../wire/TunnelKey.js"
import type { SessionProof } from "./SessionProof.js"
import * as SessionState from "./SessionState.js"
import { type Place, SessionStore, type SessionStoreError } from "./SessionStore.js"

/** A session of this process. */
export interface Live {
  /** What another process needs to continue it from now; `undefined` when it is over. */
  readonly state: () => SessionState.SessionState | undefined
  /** No signal gets such a number, and no pool connection such a count, until this is called again. */
  readonly reserve: (limits: { readonly numbers: number; readonly joins: number }) => void
  /** The state that it continues, as `restore` returned it. Defaults to a new session. */
  readonly restored?: SessionState.SessionState | undefined
}

export interface SessionKeeper {
  /** Whether sessions are kept here. */
  readonly isEnabled: boolean
  /** The session of the previous process, unless it is too old, was not `accepted`, or was kept with another tunnel key. */
  readonly restore: (options: {
    readonly key: TunnelKey.TunnelKey
    readonly accepts: (state: SessionState.SessionState) => boolean
  }) => Effect.Effect<Option.Option<SessionState.SessionState>>
  /** Keeps this session from now on, in place of any other. */
  readonly keep: (live: Live) => void
  /** The session is over: what is stored of it is removed. */
  readonly drop: (live: Live) => void
  /** The state of the session is another. Costs a comparison. */
  readonly touch: () => void
  /** Stores the last state of a session that stops, exactly, and keeps none from now on. A failure is logged. */
  readonly save: (state: SessionState.SessionState) => Effect.Effect<void>
}

/** Until the present scope closes. `tunnel` is the name of the tunnel in the store. */
export const make = (
  tunnel: string
): Effect.Effect<SessionKeeper, never, Crypto | Scope.Scope | SessionStore | Settings> =>
  Effect.gen(function* () {
    const { store } = yield* SessionStore
    if (Option.isNone(store)) return none
    const place = yield* Effect.option(
      Effect.tapError(store.value.open(tunnel), ({ message }) => Effect.logWarning(`${message}; it is not kept`))
    )
    return Option.isSome(place) ? yield* makeIn(place.value) : none
  })

// internal

/** How many numbers, and counts of pool connections, are reserved at a time. Less than a `ReplayWindow` remembers. */
export const block = 16_384
/** Each connection uses one at most, also those whose count is below the highest one. */
const idsAhead = 2 ** 18
/** Shortest time between two writes. What changes meanwhile is in the second one. */
const pause = Duration.millis(100)

/** For a very short grace. */
const leastRefreshMillis = 1000

const none: SessionKeeper = {
  isEnabled: false,
  restore: () => Effect.succeedNone,
  keep: () => undefined,
  drop: () => undefined,
  touch: () => undefined,
  save: () => Effect.void
}

/** Where another process continues. */
interface Bounds {
  readonly next: number
  readonly joins: number
  readonly ids: number
}

/** What the store has. */
interface Stored {
  readonly of: Live | SessionState.SessionState
  readonly bounds: Bounds
  readonly proof: SessionProof
  /** The text without its time. */
  readonly content: string
  /** When it was written, in milliseconds of the time of day. */
  readonly at: number
}

const makeIn = (place: Place): Effect.Effect<SessionKeeper, never, Crypto | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { resumeGrace } = yield* Settings
    /** A session that was refreshed later than this ago may still be in its grace. */
    const refreshMillis = Math.max(leastRefreshMillis, Duration.toMillis(resumeGrace) / 3)
    const changed = yield* Effect.makeLatch(false)
    const turn = yield* Effect.makeSemaphore(1)
    let live: Live | undefined
    let stored: Stored | undefined
    /** Something may be in the store. */
    let isUsed = false
    let isTouched = false
    let isSaved = false
    let failure: string | undefined
    let sealed: { readonly proof: SessionProof; readonly text: SessionState.Sealed } | undefined

    const wake = () => {
      isTouched = true
      changed.unsafeOpen()
    }
    const sealedOf = (proof: SessionProof) =>
      sealed?.proof === proof
        ? Effect.succeed(sealed.text)
        : Effect.tap(SessionState.seal(crypto, proof), (text) => Effect.sync(() => (sealed = { proof, text })))

    /** Stores that another process continues this state from these bounds. */
    const put = (of: Stored["of"], state: SessionState.SessionState, bounds: Bounds) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const next = {
          ...state,
          bus: { ...state.bus, outbox: { ...state.bus.outbox, next: bounds.next } },
          pool: bounds
        }
        const secret = yield* sealedOf(state.proof)
        const content = SessionState.toText(0, next, secret)
        const isSame = stored?.of === of && stored.content === content
        if (isSame && at - (stored?.at ?? 0) < refreshMillis) return
        isUsed = true
        const isDurable = !isSame && (stored?.of !== of || stored.bounds !== bounds || stored.proof !== state.proof)
        yield* place.write(SessionState.toText(at, next, secret), { isDurable })
        stored = { of, bounds, proof: state.proof, content, at }
      })
    const remove = Effect.suspend(() => {
      stored = undefined
      if (!isUsed) return Effect.void
      return Effect.tap(place.remove, () => Effect.sync(() => (isUsed = false)))
    })

    const keepNow = (current: Live, state: SessionState.SessionState) =>
      Effect.gen(function* () {
        const known = stored?.of === current ? stored.bounds : undefined
        const bounds = known === undefined || isLow(state, known) ? ahead(state) : known
        // While nothing of this session is stored, no other process can continue it.
        if (known === undefined) current.reserve(limitsOf(bounds))
        yield* put(current, state, bounds)
        current.reserve(limitsOf(bounds))
        if (failure !== undefined) yield* Effect.logInfo("the session is kept again")
        failure = undefined
      }).pipe(
        Effect.catchAll(({ message }) =>
          Effect.gen(function* () {
            if (failure !== message) yield* Effect.logWarning(`${message}; if this process is killed, a new one begins`)
            failure = message
            yield* Effect.ignore(remove)
            current.reserve({ numbers: Infinity, joins: Infinity })
          })
        )
      )
    const step = turn.withPermits(1)(
      Effect.suspend(() => {
        isTouched = false
        changed.unsafeClose()
        const state = live?.state()
        if (live !== undefined && state !== undefined) return keepNow(live, state)
        return isSaved ? Effect.void : Effect.ignore(remove)
      })
    )
    const awaitChange = Effect.suspend(() =>
      live === undefined ? changed.await : Effect.timeoutOption(changed.await, Duration.millis(refreshMillis))
    )
    // Nothing is left of a session that has ended.
    yield* Effect.addFinalizer(() => (isSaved ? Effect.void : turn.withPermits(1)(Effect.ignore(remove))))
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(Effect.zipRight(awaitChange, step), Effect.sleep(pause))))

    const read = ({ accepts, key }: Parameters<SessionKeeper["restore"]>[0]) =>
      Effect.gen(function* () {
        const text = yield* place.read
        if (Option.isNone(text)) return Option.none()
        isUsed = true
        const { at, state } = yield* SessionState.fromText(crypto, text.value, key)
        const age = (yield* Clock.currentTimeMillis) - at
        if (age > Duration.toMillis(resumeGrace) + refreshMillis) return Option.none()
        const accepted = Option.filter(state, accepts)
        // Before anything is used: if this process ends as well, the next one continues behind it.
        if (Option.isSome(accepted)) yield* put(accepted.value, accepted.value, ahead(accepted.value))
        return accepted
      })

    return {
      isEnabled: true,
      restore: (options) =>
        read(options).pipe(
          Effect.catchAll((error) =>
            Effect.as(Effect.logWarning(restoreFailure(error)), Option.none<SessionState.SessionState>())
          ),
          Effect.tap((found) => (Option.isNone(found) ? Effect.ignore(remove) : Effect.void)),
          turn.withPermits(1)
        ),
      keep: (next) => {
        live = next
        if (stored !== undefined && stored.of === next.restored) {
          stored = { ...stored, of: next }
          next.reserve(limitsOf(stored.bounds))
        }
        wake()
      },
      drop: (over) => {
        if (live !== over) return
        live = undefined
        wake()
      },
      touch: () => {
        if (live !== undefined && !isTouched) wake()
      },
      save: (state) =>
        turn.withPermits(1)(
          Effect.suspend(() => {
            live = undefined
            isSaved = true
            stored = undefined
            return put(state, state, boundsOf(state))
          }).pipe(Effect.catchAll(({ message }) => Effect.zipRight(Effect.logWarning(message), Effect.ignore(remove))))
        )
    }
  })

const limitsOf = ({ joins, next }: Bounds) => ({ numbers: next, joins })

const boundsOf = ({ bus, pool }: SessionState.SessionState): Bounds => ({ next: bus.outbox.next, ...pool })

const ahead = ({ bus, pool }: SessionState.SessionState): Bounds => ({
  next: bus.outbox.next + block,
  joins: pool.joins + block,
  ids: AcceptingPool.skipIds(pool.ids, idsAhead)
})

/** Whether half of what is reserved is used. */
const isLow = ({ bus, pool }: SessionState.SessionState, bounds: Bounds): boolean =>
  bus.outbox.next > bounds.next - block / 2 || pool.joins > bounds.joins - block / 2

const restoreFailure = (error: SessionStoreError | { readonly _tag: "ParseError" }): string =>
  error._tag === "ParseError" ? "the stored session cannot be decoded; beginning a new one" : error.message
