/**
 * OpenSSL as Node has it built in, called by its public functions through koffi.
 *
 * Contexts, sessions and BIOs are pointers. They are valid in every thread of the process, but only one thread may use one at
 * a time. Each thread has an error queue of its own, and every call here leaves it empty: `SSL_get_error` would take an old
 * error for a new one.
 */
import * as OpenSslBios from "./OpenSslBios.js"
import * as OpenSslContexts from "./OpenSslContexts.js"
import * as OpenSslErrors from "./OpenSslErrors.js"
import * as OpenSslSessions from "./OpenSslSessions.js"

export interface OpenSsl
  extends
    OpenSslErrors.OpenSslErrors,
    OpenSslContexts.OpenSslContexts,
    OpenSslSessions.OpenSslSessions,
    OpenSslBios.OpenSslBios {}

/** Fails when koffi is missing, or when Node has no OpenSSL 3 or later. */
export const load = async (): Promise<OpenSsl> => {
  const { default: koffi } = await import("koffi")
  const library = koffi.load(null)
  const version: () => number = library.func("ulong OpenSSL_version_num()")
  if (version() < 0x3000_0000) throw new Error("it is older than OpenSSL 3")
  const errors = OpenSslErrors.bind(library)
  return {
    ...errors,
    ...OpenSslContexts.bind(library, errors),
    ...OpenSslSessions.bind(library, errors),
    ...OpenSslBios.bind(library)
  }
}
