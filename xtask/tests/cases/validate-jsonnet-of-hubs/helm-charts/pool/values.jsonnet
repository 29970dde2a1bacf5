local hub = std.extVar('XTASK_HUB_NAME');
local lib = import 'lib.libsonnet';
local images = [{ image: 'registry.example.org/%s:latest' % name } for name in ['fish', 'frog', 'heron', 'newt']];
local shaped(values) = if hub == 'nested' then { pool: values } else values;
local size = { size: 'small' } + if hub == 'sea' then { size: 'big' } else {};

shaped(lib + size + {
  depth: if hub == 'staging' then 2 else 'deep',
  choices: images,
  logins: [{ token: std.join('_', ['ghp', '0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX']) }],
  copied: ['ENC[AES256_GCM,data:' + hub + ',type:str]'],
})
