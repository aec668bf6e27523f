/**
 * Certificates of this side of a tunnel, with their private keys: self-signed, or loaded from files and reloaded on change.
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/**
 * A file cannot be used. `Unreadable`: it cannot be read. `NotPem`: it does not contain the expected PEM. `KeyMismatch`: the key
 * belongs to another certificate. `Expired`: the certificate has expired. `Unusable`: TLS rejects it, e.g. for a weak key.
 * `Concealed`: one of these, where the message must not reveal which.
 */
export class CertificateError extends Schema.TaggedError<CertificateError>()("CertificateError", {
  reason: Schema.Literal("Unreadable", "NotPem", "KeyMismatch", "Expired", "Unusable", "Concealed"),
  /** The URL parameter that names the file. */
  parameter: Schema.Literal("crt", "key", "ca"),
  file: Schema.String,
  /** What is wrong. Follows the file's name in the message. */
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.parameter}=${this.file}: ${this.detail}`
  }
}

export interface Certificate {
  /** PEM: the certificate, then the intermediate certificates. */
  readonly chain: string
  /** PEM. */
  readonly key: Redacted.Redacted
  /** SHA-256 of the certificate's DER: 64 lower-case hex digits. */
  readonly fingerprint: string
  /** The DNS names and IP addresses that it is valid for. */
  readonly names: ReadonlyArray<string>
  /** Epoch milliseconds. */
  readonly expires: number
}

export interface Files {
  /** Path of a PEM file with the certificate and the intermediate certificates. */
  readonly crt: string
  /** Path of a PEM file with its private key, unencrypted. */
  readonly key: string
}

export class Certificates extends Context.Tag("nodepass/Certificates")<
  Certificates,
  {
    /** A new self-signed certificate, valid for ten years. */
    readonly selfSigned: Effect.Effect<Certificate>
    /** Reads a certificate and its key. Fails when they cannot be used together, or when the certificate has expired. */
    readonly load: (files: Files) => Effect.Effect<Certificate, CertificateError>
    /** Reads the PEM texts of authorities from one file. Fails with `Unreadable` or `NotPem`. */
    readonly authorities: (file: string) => Effect.Effect<ReadonlyArray<string>, CertificateError>
    /**
     * Watches the files while the scope is open. The returned effect completes when a file may have changed since last time.
     *
     * Renames over a file and changed symbolic links count. Where the system cannot watch files, it never completes.
     */
    readonly changes: (files: Files) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  }
>() {}

export interface Options {
  /** How often the files are read when no change was seen. */
  readonly reloadInterval: Duration.Duration
}

/** The certificate in use. */
export interface Current {
  readonly get: Effect.Effect<Certificate>
}

/**
 * The certificate in the files, kept up to date while the scope is open.
 *
 * A usable certificate that differs replaces the previous one, which is logged. Files that cannot be used change nothing; the
 * reason is logged as a warning, and not repeated while it stays the same. Fails when the files cannot be used at the start.
 */
export const current = (
  files: Files,
  { reloadInterval }: Options
): Effect.Effect<Current, CertificateError, Certificates | Scope.Scope> =>
  Effect.gen(function* () {
    const certificates = yield* Certificates
    const changed = yield* certificates.changes(files)
    let inUse = yield* certificates.load(files)
    let warned = ""
    const reload = Effect.matchEffect(certificates.load(files), {
      onFailure: ({ message }) => {
        if (message === warned) return Effect.void
        warned = message
        return Effect.logWarning(`${message}; the previous certificate stays in use`)
      },
      onSuccess: (loaded) => {
        warned = ""
        if (isSame(loaded, inUse)) return Effect.void
        inUse = loaded
        return Effect.annotateLogs(Effect.logInfo("new certificate in use"), {
          fingerprint: loaded.fingerprint,
          expires: DateTime.formatIso(DateTime.unsafeMake(loaded.expires))
        })
      }
    })
    const due = Effect.flatMap(Effect.timeoutOption(changed, reloadInterval), (change) =>
      // A certificate and its key are written one after the other.
      Option.isNone(change) ? Effect.void : Effect.sleep(writeDelay)
    )
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(due, reload)))
    return { get: Effect.sync(() => inUse) }
  })

// internal

const writeDelay = "250 millis"

const isSame = (a: Certificate, b: Certificate): boolean =>
  a.chain === b.chain && Redacted.value(a.key) === Redacted.value(b.key)
