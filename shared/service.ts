// A service is something that runs until it is disposed: the API, the janitor. Disposing drains it.

export interface Service extends AsyncDisposable {
  readonly name: string
}
