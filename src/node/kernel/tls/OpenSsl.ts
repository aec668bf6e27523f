/**
 * What TLS on raw descriptors asks of OpenSSL: that of Node itself, by its public functions, over koffi.
 *
 * Objects are pointers, good in every thread of the process, one thread at a time. Each thread has a queue of errors,
 * which is left empty: `SSL_get_error` takes an old error for a new one.
 */
import type { LibraryHandle } from "koffi"

/** What a session said when it could not go on: it wants bytes, its peer has ended, or all is lost for the `reason`. */
export type Stop =
  | { readonly _tag: "Want" }
  | { readonly _tag: "Ended" }
  | { readonly _tag: "Failed"; readonly reason: string }

export interface OpenSsl {
  /** A context for TLS 1.3 alone, without resumption. */
  readonly newContext: () => bigint
  /** Lets go of a context; its sessions keep it as long as they live. */
  readonly freeContext: (context: bigint) => void
  /** Has a context show this certificate, PEM texts both. Throws where they are of no use. */
  readonly show: (context: bigint, chain: string, key: string) => void
  /** Has a context believe the authorities in this PEM text, and those before. */
  readonly believe: (context: bigint, authorities: string) => void

  /** A session that has no bytes to read yet, and nowhere to write to. */
  readonly newSession: (context: bigint, side: "server" | "client") => bigint
  readonly freeSession: (session: bigint) => void
  /** Has a client's session name the server it asks for. */
  readonly ask: (session: bigint, name: string) => void
  /** Has the certificate's verification include that it is for this name or address. */
  readonly expect: (session: bigint, name: string) => void
  /** Has a session read from and write to this half of a pair, `undefined` for none. */
  readonly attach: (session: bigint, half: bigint | undefined) => void
  /** One when it is through; with all else `stop` says why. */
  readonly handshake: (session: bigint) => number
  /** Bytes of one record at most; zero and less: `stop` says why. */
  readonly read: (session: bigint, bytes: Uint8Array, count: number) => number
  readonly write: (session: bigint, bytes: Uint8Array, count: number) => number
  /** Writes the `close_notify`. Not to be called once a session has failed. */
  readonly shutdown: (session: bigint) => number
  /** Why the call that answered so did not succeed. Asked at once, since it empties the queue of errors. */
  readonly stop: (session: bigint, result: number) => Stop
  /** Empties this thread's queue of what others have left in it. */
  readonly settle: () => void
  /** The peer's certificate in DER. */
  readonly peer: (session: bigint) => Uint8Array | undefined
  /** What the verification of the peer's certificate came to, by the names that Node has for it. */
  readonly verdict: (session: bigint) => string

  /** Two buffers in memory, crosswise: what is put into one half comes out of the other. */
  readonly pair: (bytes: number) => readonly [bigint, bigint]
  readonly freeHalf: (half: bigint) => void
  readonly put: (half: bigint, bytes: Uint8Array, count: number) => number
  /** Takes what waits in this half. */
  readonly take: (half: bigint, bytes: Uint8Array, count: number) => number
  /** Bytes that wait in this half. */
  readonly waiting: (half: bigint) => number
}

/** Fails where koffi is not there, or Node does not stand on OpenSSL 3 or later. */
export const load = async (): Promise<OpenSsl> => {
  const { default: koffi } = await import("koffi")
  const library = koffi.load(null)
  const version: () => number = library.func("ulong OpenSSL_version_num()")
  if (version() < 0x3000_0000) throw new Error("it is older than OpenSSL 3")
  return { ...errors(library), ...contexts(library), ...sessions(library), ...halves(library) }
}

/** How a verification ends that has nothing against the certificate, nor against its name. */
export const verdicts = { good: "OK", wrongName: "HOSTNAME_MISMATCH" } as const

// internal

type Call<Parameters extends ReadonlyArray<unknown>, Result> = (...parameters: Parameters) => Result
type Pointer = bigint | null

const made = (pointer: Pointer): bigint => {
  if (pointer === null) throw new Error("OpenSSL is out of memory")
  return pointer
}

const errors = (library: LibraryHandle) => {
  const clear: () => void = library.func("void ERR_clear_error()")
  const peek: () => number = library.func("ulong ERR_peek_error()")
  const reasonOf: Call<[number], string | null> = library.func("const char* ERR_reason_error_string(ulong)")
  const getError: Call<[bigint, number], number> = library.func("int SSL_get_error(void*, int)")
  /** A call to peek takes a quarter of the time that one to clear does: 70 ns. */
  const settle: OpenSsl["settle"] = () => {
    if (peek() !== 0) clear()
  }
  const reason = (): string => {
    const code = peek()
    clear()
    return (code === 0 ? null : reasonOf(code)) ?? "it broke off"
  }
  const stop: OpenSsl["stop"] = (session, result) => {
    const error = getError(session, result)
    if (error === SSL_ERROR_WANT_READ) return want
    return error === SSL_ERROR_ZERO_RETURN ? ended : { _tag: "Failed", reason: reason() }
  }
  return { settle, stop }
}

const contexts = (library: LibraryHandle) => {
  const method: () => bigint = library.func("void* TLS_method()")
  const make: Call<[bigint], Pointer> = library.func("void* SSL_CTX_new(void*)")
  const control: Call<[bigint, number, number, null], number> = library.func(
    "long SSL_CTX_ctrl(void*, int, long, void*)"
  )
  const addToChain: Call<[bigint, number, number, bigint], number> = library.func(
    "long SSL_CTX_ctrl(void*, int, long, void*)"
  )
  const setTickets: Call<[bigint, number], number> = library.func("int SSL_CTX_set_num_tickets(void*, size_t)")
  const useCertificate: Call<[bigint, bigint], number> = library.func("int SSL_CTX_use_certificate(void*, void*)")
  const useKey: Call<[bigint, bigint], number> = library.func("int SSL_CTX_use_PrivateKey(void*, void*)")
  const storeOf: Call<[bigint], bigint> = library.func("void* SSL_CTX_get_cert_store(void*)")
  const addToStore: Call<[bigint, bigint], number> = library.func("int X509_STORE_add_cert(void*, void*)")
  const text: Call<[Uint8Array, number], Pointer> = library.func("void* BIO_new_mem_buf(void*, int)")
  const freeText: Call<[bigint], number> = library.func("int BIO_free(void*)")
  const readCertificate: Call<[bigint, null, null, null], Pointer> = library.func(
    "void* PEM_read_bio_X509(void*, void*, void*, void*)"
  )
  const freeCertificate: Call<[bigint], void> = library.func("void X509_free(void*)")
  // Its last is the password: none, and nobody is asked for one.
  const readKey: Call<[bigint, null, null, string], Pointer> = library.func(
    "void* PEM_read_bio_PrivateKey(void*, void*, void*, const char*)"
  )
  const freeKey: Call<[bigint], void> = library.func("void EVP_PKEY_free(void*)")
  const { settle } = errors(library)

  const within = <A>(pem: string, use: (text: bigint) => A): A => {
    const bytes = Buffer.from(pem)
    const bio = made(text(bytes, bytes.length))
    try {
      return use(bio)
    } finally {
      freeText(bio)
      settle()
    }
  }
  const eachCertificate = (pem: string, use: (certificate: bigint, index: number) => boolean): boolean =>
    within(pem, (bio) => {
      let good = true
      let index = 0
      for (;;) {
        const certificate = readCertificate(bio, null, null, null)
        if (certificate === null) return good && index > 0
        good = use(certificate, index++) && good
        freeCertificate(certificate)
      }
    })

  return {
    newContext: () => {
      const context = made(make(method()))
      control(context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_3_VERSION, null)
      control(context, SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_3_VERSION, null)
      control(context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, null)
      control(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, null)
      setTickets(context, 0)
      return context
    },
    freeContext: library.func("void SSL_CTX_free(void*)"),
    show: (context: bigint, chain: string, key: string) => {
      const shown = eachCertificate(chain, (certificate, index) =>
        index === 0
          ? useCertificate(context, certificate) === 1
          : addToChain(context, SSL_CTRL_CHAIN_CERT, 1, certificate) === 1
      )
      const used = within(key, (bio) => {
        const found = readKey(bio, null, null, "")
        const used = found !== null && useKey(context, found) === 1
        if (found !== null) freeKey(found)
        return used
      })
      if (!shown || !used) throw new Error("OpenSSL has no use for the certificate or its key")
    },
    believe: (context: bigint, authorities: string) => {
      const store = storeOf(context)
      eachCertificate(authorities, (certificate) => addToStore(store, certificate) === 1)
    }
  }
}

const sessions = (library: LibraryHandle) => {
  const make: Call<[bigint], Pointer> = library.func("void* SSL_new(void*)")
  const accepts: Call<[bigint], void> = library.func("void SSL_set_accept_state(void*)")
  const connects: Call<[bigint], void> = library.func("void SSL_set_connect_state(void*)")
  const control: Call<[bigint, number, number, string], number> = library.func(
    "long SSL_ctrl(void*, int, long, const char*)"
  )
  const parameters: Call<[bigint], bigint> = library.func("void* SSL_get0_param(void*)")
  const setFlags: Call<[bigint, number], void> = library.func("void X509_VERIFY_PARAM_set_hostflags(void*, uint)")
  const setHost: Call<[bigint, string, number], number> = library.func(
    "int X509_VERIFY_PARAM_set1_host(void*, const char*, size_t)"
  )
  const setAddress: Call<[bigint, string], number> = library.func(
    "int X509_VERIFY_PARAM_set1_ip_asc(void*, const char*)"
  )
  const setHalf: Call<[bigint, Pointer, Pointer], void> = library.func("void SSL_set_bio(void*, void*, void*)")
  const hold: Call<[bigint], number> = library.func("int BIO_up_ref(void*)")
  const peerOf: Call<[bigint], Pointer> = library.func("void* SSL_get1_peer_certificate(void*)")
  const freeCertificate: Call<[bigint], void> = library.func("void X509_free(void*)")
  const memory: () => bigint = library.func("void* BIO_s_mem()")
  const newText: Call<[bigint], Pointer> = library.func("void* BIO_new(void*)")
  const freeText: Call<[bigint], number> = library.func("int BIO_free(void*)")
  const writeDer: Call<[bigint, bigint], number> = library.func("int i2d_X509_bio(void*, void*)")
  const length: Call<[bigint], number> = library.func("size_t BIO_ctrl_pending(void*)")
  const takeAll: Call<[bigint, Uint8Array, number], number> = library.func("int BIO_read(void*, void*, int)")
  const verdictOf: Call<[bigint], number> = library.func("long SSL_get_verify_result(void*)")
  const freeSession: OpenSsl["freeSession"] = library.func("void SSL_free(void*)")
  const handshake: OpenSsl["handshake"] = library.func("int SSL_do_handshake(void*)")
  const read: OpenSsl["read"] = library.func("int SSL_read(void*, void*, int)")
  const write: OpenSsl["write"] = library.func("int SSL_write(void*, void*, int)")
  const shutdown: OpenSsl["shutdown"] = library.func("int SSL_shutdown(void*)")
  const { settle } = errors(library)
  return {
    newSession: (context: bigint, side: "server" | "client") => {
      const session = made(make(context))
      if (side === "server") accepts(session)
      else connects(session)
      return session
    },
    freeSession,
    ask: (session: bigint, name: string) => {
      control(session, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name)
    },
    expect: (session: bigint, name: string) => {
      const expected = parameters(session)
      setFlags(expected, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
      const set = name !== "" && (setAddress(expected, name) === 1 || setHost(expected, name, 0) === 1)
      settle()
      // To go on would be to let every name pass.
      if (!set) throw new Error("no certificate can be for this name")
    },
    attach: (session: bigint, half: bigint | undefined) => {
      // Given one half for both, it takes one hold of it.
      if (half !== undefined) hold(half)
      setHalf(session, half ?? null, half ?? null)
    },
    handshake,
    read,
    write,
    shutdown,
    peer: (session: bigint) => {
      const certificate = peerOf(session)
      if (certificate === null) return undefined
      const bio = made(newText(memory()))
      writeDer(bio, certificate)
      const der = new Uint8Array(length(bio))
      takeAll(bio, der, der.length)
      freeText(bio)
      freeCertificate(certificate)
      return der
    },
    verdict: (session: bigint) => {
      const verdict = verdictOf(session)
      return names[verdict] ?? `X509_V_ERR_${verdict}`
    }
  }
}

const halves = (library: LibraryHandle) => {
  const make: Call<[BigUint64Array, number, BigUint64Array, number], number> = library.func(
    "int BIO_new_bio_pair(void*, size_t, void*, size_t)"
  )
  const freeHalf: OpenSsl["freeHalf"] = library.func("int BIO_free(void*)")
  const put: OpenSsl["put"] = library.func("int BIO_write(void*, void*, int)")
  const take: OpenSsl["take"] = library.func("int BIO_read(void*, void*, int)")
  const waiting: OpenSsl["waiting"] = library.func("size_t BIO_ctrl_pending(void*)")
  return {
    pair: (bytes: number) => {
      const [one, other] = [new BigUint64Array(1), new BigUint64Array(1)]
      make(one, bytes, other, bytes)
      return [made(one[0] ?? null), made(other[0] ?? null)] as const
    },
    freeHalf,
    put,
    take,
    waiting
  }
}

const want: Stop = { _tag: "Want" }
const ended: Stop = { _tag: "Ended" }

// The numbers of `ssl.h`, `tls1.h` and `x509_vfy.h`, the same in every OpenSSL 3.
const TLS1_3_VERSION = 0x0304
const SSL_CTRL_MODE = 33
const SSL_CTRL_SET_SESS_CACHE_MODE = 44
const SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
const SSL_CTRL_CHAIN_CERT = 89
const SSL_CTRL_SET_MIN_PROTO_VERSION = 123
const SSL_CTRL_SET_MAX_PROTO_VERSION = 124
const SSL_MODE_RELEASE_BUFFERS = 0x10
const TLSEXT_NAMETYPE_host_name = 0
const X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 0x4
const SSL_ERROR_WANT_READ = 2
const SSL_ERROR_ZERO_RETURN = 6

const names: Readonly<Record<number, string>> = {
  0: verdicts.good,
  2: "UNABLE_TO_GET_ISSUER_CERT",
  3: "UNABLE_TO_GET_CRL",
  4: "UNABLE_TO_DECRYPT_CERT_SIGNATURE",
  6: "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY",
  7: "CERT_SIGNATURE_FAILURE",
  9: "CERT_NOT_YET_VALID",
  10: "CERT_HAS_EXPIRED",
  13: "ERROR_IN_CERT_NOT_BEFORE_FIELD",
  14: "ERROR_IN_CERT_NOT_AFTER_FIELD",
  17: "OUT_OF_MEM",
  18: "DEPTH_ZERO_SELF_SIGNED_CERT",
  19: "SELF_SIGNED_CERT_IN_CHAIN",
  20: "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  21: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  22: "CERT_CHAIN_TOO_LONG",
  23: "CERT_REVOKED",
  24: "INVALID_CA",
  25: "PATH_LENGTH_EXCEEDED",
  26: "INVALID_PURPOSE",
  27: "CERT_UNTRUSTED",
  28: "CERT_REJECTED",
  62: verdicts.wrongName,
  64: verdicts.wrongName
}
