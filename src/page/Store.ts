/**
 * The page's store: signs in, follows the master's events, and polls the master's figures.
 */
import { useEffect, useReducer } from "preact/hooks"
import * as Api from "./Api.js"
import * as EventFeed from "./EventFeed.js"
import { nothing, reduce, type State } from "./State.js"

export interface Store {
  readonly state: State
  readonly signIn: (key: string) => Promise<void>
  readonly signOut: () => void
}

export const useStore = (): Store => {
  const [state, dispatch] = useReducer(reduce, nothing)

  const signOut = (reason: string) => {
    sessionStorage.removeItem(keyName)
    dispatch({ _tag: "SignedOut", reason })
  }
  const signIn = async (key: string) => {
    // Other characters are not allowed in a header.
    if (!/^[\x21-\x7e]+$/.test(key)) return signOut("API key: expected 32 hex digits")
    const api = Api.make(key)
    sessionStorage.setItem(keyName, key)
    try {
      const info = await api.get<Api.MasterInfo>("info")
      dispatch({ _tag: "SignedIn", api, info })
    } catch (error) {
      signOut(error instanceof Api.Refused ? error.message : "the master does not answer")
    }
  }

  useEffect(() => {
    const key = rememberedKey()
    if (key !== "") void signIn(key)
  }, [])

  useEffect(() => {
    const { api } = state
    if (api === undefined) return
    const refreshInfo = () => {
      if (document.hidden) return
      api.get<Api.MasterInfo>("info").then(
        (info) => dispatch({ _tag: "Info", info, now: Date.now() }),
        () => undefined
      )
    }
    const timer = setInterval(refreshInfo, infoInterval)
    // Events that arrive together are rendered once.
    let events: Array<Api.Event> = []
    let replaces = false
    const flush = () => {
      dispatch({ _tag: "Events", events, replaces, now: Date.now() })
      events = []
      replaces = false
    }
    const unfollow = EventFeed.follow(api, {
      onRestart: () => {
        events.length = 0
        replaces = true
      },
      onEvent: (event) => {
        if (event.type !== "log" && events.push(event) === 1) setTimeout(flush, batchDelay)
      },
      onState: (live) => dispatch({ _tag: "Live", live }),
      // A newer key may be in use by now.
      onRefused: ({ message }) => rememberedKey() === api.key && signOut(message)
    })
    return () => {
      clearInterval(timer)
      unfollow()
    }
  }, [state.api])

  return { state, signIn, signOut: () => signOut("") }
}

/** The key entered in this tab. */
export const rememberedKey = (): string => sessionStorage.getItem(keyName) ?? ""

// internal

/** In the session storage of this tab only. */
const keyName = "nodepass-key"
const infoInterval = 5000
/** Milliseconds that events are collected before they are rendered. */
const batchDelay = 50
