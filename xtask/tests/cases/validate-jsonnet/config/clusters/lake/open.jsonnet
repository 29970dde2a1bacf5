{
  jupyterhub: { hub: { config: {
    JupyterHub: { authenticator_class: "github" },
    OAuthenticator: { allow_all: true },
    Authenticator: { blocked_users: ["deployment-service-check"] },
  } } },
}
