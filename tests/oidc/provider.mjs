// A real identity provider for tests: client credentials, JWT access tokens with groups.
import Provider from 'oidc-provider';

const [port, audience] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const client = (id, groups, more = {}) => ({
  client_id: id,
  client_secret: `secret-of-${id}`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  ...more,
});
const GROUPS = { answers: ['ml'], operator: ['ml', 'ops'], nobody: ['sales'] };
const provider = new Provider(issuer, {
  clients: Object.keys(GROUPS).map((id) => client(id)),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'api',
        audience: resource,
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  extraTokenClaims: (_, token) => ({ groups: GROUPS[token.clientId], sub: token.clientId }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
